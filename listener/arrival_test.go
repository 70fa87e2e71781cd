package listener

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
)

// arriving returns a connection that another process could have accepted, and its client's end.
func arriving(t *testing.T, network, address string) (conn, own net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if own, err = net.Dial(network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if conn, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); own.Close() })
	return conn, own
}

func TestArrivalIsServedOrNotNoticed(t *testing.T) {
	var set Set
	defer set.Close()
	ln, err := set.Listen(t.Context(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, own := arriving(t, "tcp", "127.0.0.1:0")
	arrival, err := ln.Expect(conn)
	if err != nil {
		t.Fatal(err)
	}
	if have := ln.Conns(); have != 1 {
		t.Errorf("while it arrives: want 1 connection, have %d", have)
	}
	if err := arrival.Serve(); err != nil {
		t.Fatal(err)
	}
	served, err := ln.Adopted().Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(served, "hello"); err != nil {
		t.Fatal(err)
	}
	served.Close()
	if have, err := io.ReadAll(own); err != nil || string(have) != "hello" {
		t.Errorf("client: want hello, have %q, %v", have, err)
	}
	if have, ended := ln.Conns(), set.Ended(); have != 0 || ended != 1 {
		t.Errorf("want 0 connections, 1 ended, have %d, %d", have, ended)
	}
}

// A connection that stays with the other process does not notice that this one had a descriptor of it.
func TestArrivalThatDoesNotArrive(t *testing.T) {
	var set Set
	defer set.Close()
	ln, err := set.Listen(t.Context(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, own := arriving(t, "tcp", "127.0.0.1:0")
	file, err := conn.(*net.TCPConn).File() // the other process's
	if err != nil {
		t.Skip("needs a second descriptor: ", err)
	}
	defer file.Close()
	arrival, err := ln.Expect(conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := arrival.Close(); err != nil {
		t.Error(err)
	}
	if have, ended := ln.Conns(), set.Ended(); have != 0 || ended != 0 {
		t.Errorf("want 0 connections, 0 ended, have %d, %d", have, ended)
	}
	again, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := io.WriteString(again, "hello"); err != nil {
		t.Fatal(err)
	}
	hello := make([]byte, 5)
	if _, err := io.ReadFull(own, hello); err != nil {
		t.Errorf("client: have %q, %v", hello, err)
	}
}

func TestArrivalOfWhatTheListenerCouldNotHaveAccepted(t *testing.T) {
	var set Set
	defer set.Close()
	ln, err := set.Listen(context.Background(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unix, _ := arriving(t, "unix", t.TempDir()+"/socket")
	piped, _ := net.Pipe()
	for _, conn := range []net.Conn{unix, piped} {
		if _, err := ln.Expect(conn); !errors.Is(err, ErrAdopt) {
			t.Errorf("%T: want ErrAdopt, have %v", conn, err)
		}
	}
	if _, err := unix.Write([]byte("x")); err != nil {
		t.Errorf("want it to stay the caller's, have %v", err)
	}
	if have := ln.Conns(); have != 0 {
		t.Errorf("want 0 connections, have %d", have)
	}
	conn, own := arriving(t, "tcp", "127.0.0.1:0")
	arrival, err := ln.Expect(conn)
	if err != nil {
		t.Fatal(err)
	}
	ln.Adopted().Close()
	if err := arrival.Serve(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Adopted was closed: want net.ErrClosed, have %v", err)
	}
	if _, err := own.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("client: want EOF, have %v", err)
	}
}
