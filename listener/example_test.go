//go:build unix

package listener_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"net"

	"github.com/segue-go/segue/listener"
)

// Two generations in one process: the successor asks for what it needs with the same words, and gets the predecessor's sockets, also
// the port that the kernel chose for the first.
func Example() {
	ctx := context.Background()

	var predecessor listener.Set
	web, err := predecessor.Listen(ctx, "web", "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}

	sockets, err := predecessor.Sockets() // travel to the successor
	if err != nil {
		log.Fatal(err)
	}
	var successor listener.Set
	for _, socket := range sockets {
		if err := successor.Inherit(socket); err != nil {
			log.Fatal(err)
		}
	}
	same, err := successor.Listen(ctx, "web", "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	metrics, err := successor.Listen(ctx, "metrics", "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	successor.CloseUnclaimed()

	if err := predecessor.Leave(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(same.Inherited(), same.Addr().String() == web.Addr().String())
	fmt.Println(metrics.Inherited())
	if err := successor.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// true true
	// false
}

// A paused listener takes nothing, and loses nothing.
func ExampleListener_Pause() {
	var set listener.Set
	defer set.Close()
	l, err := set.Listen(context.Background(), "echo", "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // net.ErrClosed
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()

	l.Pause()
	c, err := net.Dial("tcp", l.Addr().String()) // the kernel answers
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintln(c, "hello")
	fmt.Println("accepted while paused:", l.Conns())

	l.Resume()
	var line string
	if _, err := fmt.Fscanln(c, &line); err != nil {
		log.Fatal(err)
	}
	fmt.Println(line)
	c.Close()
	// Output:
	// accepted while paused: 0
	// hello
}

// Draining: stop accepting, give open connections some time, close what is left.
func ExampleListener_WaitConns() {
	var set listener.Set
	defer set.Close()
	l, err := set.Listen(context.Background(), "raw", "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if _, err := l.Accept(); err != nil {
		log.Fatal(err)
	}

	l.Pause()
	drain, cancel := context.WithCancel(context.Background())
	cancel() // as if the time had passed
	if err := l.WaitConns(drain); err != nil {
		fmt.Println("cut:", l.CloseConns())
	}
	fmt.Println("open:", l.Conns())
	// Output:
	// cut: 1
	// open: 0
}

// A relay that is stopped, and goes on: between the two, the connections could have been handed to another process.
func ExampleRelay() {
	client, a := net.Pipe()
	b, upstream := net.Pipe()
	relay := listener.NewRelay(a, b)

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- relay.Run(ctx) }()
	var word string
	go fmt.Fprintln(client, "one")
	fmt.Fscanln(upstream, &word)
	fmt.Println(word)
	cancel()
	fmt.Println(<-ended)

	relay, err := listener.RestoreRelay(a, b, relay.State())
	if err != nil {
		log.Fatal(err)
	}
	go func() { ended <- relay.Run(context.Background()) }()
	go fmt.Fprintln(client, "two")
	fmt.Fscanln(upstream, &word)
	fmt.Println(word)
	client.Close()
	fmt.Println(<-ended)
	fmt.Println(relay.Passed())
	// Output:
	// one
	// read interrupted
	// two
	// <nil>
	// 8 0
}
