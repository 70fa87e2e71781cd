//go:build linux

package listener

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// rawPair returns a listener, a connection that it has accepted, and the connection's client.
func rawPair(t *testing.T) (*Listener, *Conn, net.Conn) {
	t.Helper()
	s, _ := newSet(t)
	ln := must(s.Listen(testContext(t), "raw", "tcp", "127.0.0.1:0"))(t)
	coming := goAccept(ln)
	client := dial(t, ln.Addr())
	conn := receive(t, coming)
	if conn.err != nil {
		t.Fatal(conn.err)
	}
	t.Cleanup(func() { conn.conn.Close() })
	return ln, conn.conn, client
}

// want reads as many bytes as it wants.
func want(t *testing.T, from io.Reader, text string) {
	t.Helper()
	have := make([]byte, len(text))
	if _, err := io.ReadFull(from, have); err != nil || string(have) != text {
		t.Fatalf("want %q, have %q, %v", text, have, err)
	}
}

func say(t *testing.T, to io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		t.Fatal(err)
	}
}

func TestInterruptEndsOneRead(t *testing.T) {
	_, conn, client := rawPair(t)
	buffer := make([]byte, 8)
	for _, when := range []string{"under way", "to come"} {
		result := make(chan error, 1)
		read := func() {
			_, err := conn.Read(buffer)
			result <- err
		}
		if when == "under way" {
			go read()
			for reading := false; !reading; { // until it is in, or nearly
				conn.boundary.mu.Lock()
				reading = conn.boundary.reading
				conn.boundary.mu.Unlock()
			}
			conn.Interrupt()
		} else {
			conn.Interrupt()
			go read()
		}
		if err := receive(t, result); !errors.Is(err, ErrInterrupted) {
			t.Fatalf("Read %s: want ErrInterrupted, have %v", when, err)
		}
		say(t, client, when)
		want(t, conn, when)
	}
}

func TestInterruptLeavesTheDeadline(t *testing.T) {
	_, conn, client := rawPair(t)
	buffer := make([]byte, 8)
	conn.Interrupt()
	_ = conn.SetReadDeadline(past)
	for _, sentinel := range []error{ErrInterrupted, os.ErrDeadlineExceeded} {
		if n, err := conn.Read(buffer); n != 0 || !errors.Is(err, sentinel) {
			t.Fatalf("want %v, have %d, %v", sentinel, n, err)
		}
	}
	conn.Interrupt()
	_ = conn.SetReadDeadline(time.Time{})
	if _, err := conn.Read(buffer); !errors.Is(err, ErrInterrupted) {
		t.Fatalf("want ErrInterrupted, have %v", err)
	}
	say(t, client, "on")
	want(t, conn, "on")
}

func TestInterruptEndsACopy(t *testing.T) {
	for _, test := range []struct {
		name string
		copy func(from, to *Conn) error
	}{
		{"WriteTo", func(from, to *Conn) error { _, err := from.WriteTo(to); return err }},
		{"ReadFrom", func(from, to *Conn) error { _, err := to.ReadFrom(from); return err }},
		{"ReadFrom of a part", func(from, to *Conn) error { _, err := io.CopyN(to, from, 1<<20); return err }},
		{"WriteTo another writer", func(from, to *Conn) error { _, err := from.WriteTo(struct{ io.Writer }{to}); return err }},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, from, left := rawPair(t)
			_, to, right := rawPair(t)
			from.Unread([]byte("unread "))
			result := make(chan error, 1)
			go func() { result <- test.copy(from, to) }()
			say(t, left, "and read")
			want(t, right, "unread and read")
			from.Interrupt()
			if err := receive(t, result); !errors.Is(err, ErrInterrupted) {
				t.Fatalf("want ErrInterrupted, have %v", err)
			}
			say(t, left, "later")
			want(t, from, "later")
		})
	}
}

func TestInvariant5WhatWasGivenBackIsReadFirst(t *testing.T) {
	_, conn, client := rawPair(t)
	conn.Unread([]byte("third"))
	conn.Unread(nil)
	conn.Unread([]byte("second "))
	want(t, conn, "second") // without a byte from the client
	want(t, conn, " third")
	conn.Unread([]byte("part"))
	if n, err := io.CopyN(conn, conn, 3); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	want(t, client, "par")
	want(t, conn, "t")
}

func TestInvariant5RawConnectionsMoveWithWhatWasGivenBack(t *testing.T) {
	ln, conn, client := rawPair(t)
	say(t, client, "abcdef")
	want(t, conn, "abcd")
	conn.Unread([]byte("cd"))
	list, err := DetachConns(conn)
	if err != nil {
		t.Fatal(err)
	}
	if n := ln.Conns(); n != 0 {
		t.Errorf("want no connection left, have %d", n)
	}
	if list[0].Listener != ln.Name() {
		t.Errorf("want one of listener %q, have %q", ln.Name(), list[0].Listener)
	}
	say(t, client, "ghi")
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read after: want EOF, have %d, %v", n, err)
	}
	if _, err := DetachConns(conn); !errors.Is(err, ErrDetached) {
		t.Errorf("want ErrDetached, have %v", err)
	}
	var strays Strays
	next := must(strays.AdoptConn(list[0]))(t)
	want(t, next, "cdefghi")
	exchange(t, client, next)
	if n := strays.CloseConns(); n != 1 || strays.Conns() != 0 {
		t.Errorf("want 1 closed and none left, have %d and %d", n, strays.Conns())
	}
	if n, err := client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("client: want EOF, have %d, %v", n, err)
	}
}

func TestInvariant1DetachOfAllOrNone(t *testing.T) {
	_, first, client := rawPair(t)
	ln, second, _ := rawPair(t)
	reading := make(chan error, 1)
	go func() {
		_, err := second.Read(make([]byte, 1))
		reading <- err
	}()
	leavesNoFD(t, func() {
		for reading := false; !reading; {
			second.boundary.mu.Lock()
			reading = second.boundary.reading
			second.boundary.mu.Unlock()
		}
		if list, err := DetachConns(first, second); !errors.Is(err, ErrReading) {
			t.Fatalf("want ErrReading, have %d, %v", len(list), err)
		}
	})
	exchange(t, client, first)
	if n := ln.Conns(); n != 1 {
		t.Errorf("want 1 connection, have %d", n)
	}
	second.Interrupt()
	if err := receive(t, reading); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	list, err := DetachConns(first, second)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestStraysTakeNothingButStreams(t *testing.T) {
	var strays Strays
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	if _, err := strays.Add(left); !errors.Is(err, ErrAdopt) {
		t.Errorf("want ErrAdopt, have %v", err)
	}
	ln, _, _ := rawPair(t)
	dialed := must(strays.Add(must(dialErr(ln.Addr()))(t)))(t)
	if n := strays.Conns(); n != 1 {
		t.Errorf("want 1, have %d", n)
	}
	list, err := DetachConns(dialed)
	if err != nil {
		t.Fatal(err)
	}
	defer list[0].Close()
	if strays.Conns() != 0 || list[0].Listener != "" {
		t.Errorf("want none left, of no listener, have %d, %q", strays.Conns(), list[0].Listener)
	}
	if !bytes.Equal(list[0].Residual, nil) {
		t.Errorf("want no residual, have %q", list[0].Residual)
	}
}
