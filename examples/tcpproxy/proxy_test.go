//go:build unix

package main

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/chain"
)

// listen is an upstream that says its name, echoes, and hangs up when the client does.
func listen(t *testing.T, name string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, name)
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return ln.Addr().String()
}

// hear dials the proxy and returns the name that it hears, or what it gets instead.
func hear(t *testing.T, address string) (conn net.Conn, name string, err error) {
	t.Helper()
	if conn, err = net.DialTimeout("tcp", address, chain.Within); err != nil {
		return nil, "", err // a reset may come before connect has returned
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(chain.Within))
	buffer := make([]byte, 1)
	_, err = io.ReadFull(conn, buffer)
	return conn, string(buffer), err
}

// Upstreams take turns, and one that cannot be dialed is left out.
func TestUpstreamsTakeTurns(t *testing.T) {
	nobody := net.JoinHostPort("127.0.0.1", chain.FreePort(t))
	c := start(t, nil, listen(t, "a"), nobody, listen(t, "b"))
	heard := ""
	for range 6 {
		_, name, err := hear(t, c.Addr)
		if err != nil {
			t.Fatal(err)
		}
		heard += name
	}
	if want := "abbabb"; heard != want { // the second's turns are the third's
		t.Errorf("want %s, have %s", want, heard)
	}
}

// Without an upstream a client is answered as the upstream would: by a reset.
func TestNoUpstreamIsAReset(t *testing.T) {
	c := start(t, nil, net.JoinHostPort("127.0.0.1", chain.FreePort(t)))
	if _, _, err := hear(t, c.Addr); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("want ECONNRESET, have %v", err)
	}
	c.Await(0, `level=WARN msg="no upstream" .*(connection refused)`)
}

// There are no more connections than allowed, in the successor neither, and one that has ended makes room.
func TestConnectionsAreLimited(t *testing.T) {
	c := chain.Start(t, nil, "-listen", "127.0.0.1:0", "-upstream", listen(t, "a"), "-max-conns", "2", "-probation", "0")
	first, _, err := hear(t, c.Addr)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := hear(t, c.Addr)
	if err != nil {
		t.Fatal(err)
	}
	tooMany := func() {
		t.Helper()
		if _, _, err := hear(t, c.Addr); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("want ECONNRESET, have %v", err)
		}
	}
	tooMany()
	c.Await(0, `level=WARN msg="too many connections" .*(limit=2) refused=1`)
	c.Upgrade(2)
	for _, conn := range []net.Conn{first, second} { // until the successor has them
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	tooMany()
	_ = first.Close()
	for late := time.Now().Add(chain.Within); ; {
		if _, _, err := hear(t, c.Addr); err == nil {
			break
		}
		if time.Now().After(late) {
			t.Fatal("the end of a connection has made no room")
		}
	}
}

// A connection on which nothing passes is closed, and what the upgrade took of that time counts.
func TestIdleConnectionsEnd(t *testing.T) {
	c := chain.Start(t, nil, "-listen", "127.0.0.1:0", "-upstream", listen(t, "a"), "-idle", "1s", "-probation", "0")
	conn, _, err := hear(t, c.Addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Upgrade(2)
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("want EOF, have %d bytes, %v", n, err)
	}
	c.Await(0, `msg="connection ended" .*bytes="(0 up, 1 down)" error="relay is idle"`)
}

func TestFlagsAreChecked(t *testing.T) {
	good := config{upstreams: []string{"127.0.0.1:1"}, dialTimeout: time.Second, maxConns: 1}
	for _, test := range []struct {
		name   string
		change func(*config)
		args   []string
		want   string
	}{
		{"good", func(*config) {}, nil, ""},
		{"argument", func(*config) {}, []string{"x"}, `unexpected argument "x"`},
		{"no upstream", func(c *config) { c.upstreams = nil }, nil, "-upstream"},
		{"negative", func(c *config) { c.idle = -1 }, nil, "must not be negative"},
		{"dial", func(c *config) { c.dialTimeout = 0 }, nil, "-dial-timeout is 0s, want more than 0"},
		{"no connection", func(c *config) { c.maxConns = 0 }, nil, "-max-conns is 0, want 1 or more"},
	} {
		cfg := good
		test.change(&cfg)
		err := cfg.check(test.args)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: want %q, have %v", test.name, test.want, err)
		}
	}
	for address, good := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, "db.internal:5432": true,
		"": false, "127.0.0.1": false, ":80": false, "host:0": false, "host:http": false, "host:65536": false, "::1:80": false,
	} {
		if err := checkAddress(address); (err == nil) != good {
			t.Errorf("%q: want good %v, have %v", address, good, err)
		}
	}
}
