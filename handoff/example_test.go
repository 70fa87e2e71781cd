//go:build linux || darwin || freebsd

package handoff_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/segue-go/segue/handoff"
)

// A front hands what it has to a backend, and serves it itself when the backend cannot be reached.
func Example_bare() {
	directory, err := os.MkdirTemp("", "handoff")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(directory)
	path := filepath.Join(directory, "backend.sock")
	token, err := handoff.ParseToken([]byte("16 secret bytes!"))
	if err != nil {
		fmt.Println(err)
		return
	}
	file, client, err := os.Pipe() // in place of a connection
	if err != nil {
		fmt.Println(err)
		return
	}

	var policy handoff.Policy
	front := func() {
		if decision := policy.Decide(path, handoff.Conditions{}); decision.Reconnect() {
			fmt.Println("front serves:", decision.Fallback)
			return
		}
		err := handoff.DialBare(context.Background(), path, token, file)
		if err != nil {
			fmt.Println("front serves:", policy.Failed(path, err).Fallback)
			return
		}
		policy.Succeeded(path)
		file.Close() // the backend has its own
	}

	front() // nobody there
	backend, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer backend.Close()
	front()

	conn, err := backend.AcceptUnix()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	if err := handoff.SameUser(conn); err != nil {
		fmt.Println(err)
		return
	}
	adopted, err := handoff.ReceiveBare(context.Background(), conn, token.Verify)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer adopted.Close()
	fmt.Fprint(client, "hello")
	client.Close()
	request, err := io.ReadAll(adopted)
	fmt.Println("backend serves:", string(request), err)

	// Output:
	// front serves: ack timeout
	// backend serves: hello <nil>
}

// A backend adopts what a front hands over with a Pool, and says no to what it is not for.
func Example_broker() {
	directory, err := os.MkdirTemp("", "handoff")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(directory)
	path := filepath.Join(directory, "backend.sock")

	socket, err := net.Listen("unix", path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer socket.Close()
	backend := &handoff.Backend{Service: "greeter", Adopt: func(c *handoff.Client) (func(owned bool), error) {
		return func(owned bool) {
			defer c.Conn.Close()
			if owned { // not before
				fmt.Fprintln(c.Conn, "hello")
			}
		}, nil
	}}
	go func() {
		conn, err := socket.Accept()
		if err == nil {
			err = backend.ServeConn(context.Background(), conn)
		}
		if err != nil {
			fmt.Println("backend:", err)
		}
	}()

	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer web.Close()
	pool := &handoff.Pool{Path: path, Wait: time.Minute}
	defer pool.Close()
	for _, service := range []string{"greeter", "printer"} {
		client, err := net.Dial("tcp", web.Addr().String())
		if err != nil {
			fmt.Println(err)
			return
		}
		conn, err := web.Accept()
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := pool.HandOver(&handoff.Client{Conn: conn, Service: service}); err != nil {
			fmt.Fprintln(conn, "front serves:", handoff.FallbackFor(err))
		}
		conn.Close() // the backend has its own
		answer, err := io.ReadAll(client)
		fmt.Print(service, ": ", string(answer))
		if err != nil {
			fmt.Println(err)
		}
		client.Close()
	}

	// Output:
	// greeter: hello
	// printer: front serves: service policy disabled
}
