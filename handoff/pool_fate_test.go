//go:build linux || darwin || freebsd

package handoff

import (
	"errors"
	"net"
	"testing"
)

// slowClient is a client's connection that takes what it is told when it is allowed to.
type slowClient struct {
	*net.TCPConn
	taking, free chan struct{}
}

func (c *slowClient) Write(p []byte) (int, error) {
	close(c.taking)
	<-c.free
	return c.TCPConn.Write(p)
}

// Invariant 1: when the caller learns what became of a connection, nobody here writes to it any more.
func TestInvariant1TheFateOfAConnectionIsTheLastWord(t *testing.T) {
	pool := new(Pool)
	greet := poolOf(t, pool)
	first := begin(t, pool)
	backend := greet(10)
	backend.say(accepted(backend.offer(), 10))
	if err := fate(t, first); err != nil {
		t.Fatal(err)
	}
	c, _ := client(t)
	slow := &slowClient{c.Conn.(*net.TCPConn), make(chan struct{}), make(chan struct{})}
	c.Conn, c.Relay = slow, true
	told := make(chan error, 1)
	go pool.Offer(c, func(err error) { told <- err })
	<-slow.taking
	backend.Close()
	greet(10) // the end of the first socket has been dealt with
	undecided(t, told)
	close(slow.free)
	if err := fate(t, told); !errors.Is(err, ErrUnavailable) {
		t.Errorf("want ErrUnavailable, have %v", err)
	}
}
