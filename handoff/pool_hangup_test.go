//go:build linux || darwin || freebsd

package handoff

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// A client that hangs up at once says nothing about the backend that cannot take it.
func TestClientsThatHangUpDoNotCountAsFailures(t *testing.T) {
	listener, path := listen(t)
	pool := &Pool{Path: path, Wait: time.Minute}
	backend := &Backend{Adopt: func(client *Client) (func(bool), error) {
		return func(bool) { client.Conn.Close() }, nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go backend.ServeConn(ctx, conn)
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		pool.Close()
	})
	for i := range 2 * DefaultFailures {
		c, own := client(t)
		_ = own.(*net.TCPConn).SetLinger(0)
		own.Close()
		if _, err := c.Conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		if err := pool.HandOver(c); !errors.Is(err, ErrRefused) {
			t.Errorf("client %d: want ErrRefused, have %v", i+1, err)
		}
	}
	c, _ := client(t)
	if err := pool.HandOver(c); err != nil {
		t.Errorf("a client that stays: %v", err)
	}
}
