//go:build linux

package listener

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"testing"
	"time"
)

// scripted is a connection whose first Read is made up.
type scripted struct {
	*net.TCPConn
	first func(p []byte) (int, error)
}

func (s *scripted) Read(p []byte) (int, error) {
	if first := s.first; first != nil {
		s.first = nil
		return first(p)
	}
	return s.TCPConn.Read(p)
}

// scriptedConn returns a Conn whose first Read is made up, and its client.
func scriptedConn(t *testing.T, conns *roster, first func(p []byte) (int, error)) (*Conn, net.Conn) {
	t.Helper()
	accepted, client := arriving(t, "tcp", "127.0.0.1:0")
	c := newConn(&scripted{accepted.(*net.TCPConn), first})
	conns.enter(c)
	t.Cleanup(func() { c.Close() })
	return c, client
}

// Whoever asks for a connection gets one answer, also if all that comes in that instant is a line end which is skipped.
func TestAskedConnectionAnswersWhenALineEndComes(t *testing.T) {
	for _, test := range []struct {
		name  string
		stays bool
		wakes bool
	}{{"moves", false, false}, {"stays", true, false}, {"is interrupted", true, true}} {
		t.Run(test.name, func(t *testing.T) {
			var conns roster
			var c *Conn
			var answers []*Detached
			c, _ = scriptedConn(t, &conns, func(p []byte) (int, error) {
				_, asked := conns.ask(math.MaxInt, 1, func(d *Detached, asked bool) {
					if answers = append(answers, d); !asked {
						t.Error("want the answer to a question, have a connection that came by itself")
					}
				})
				if asked != 1 {
					t.Errorf("want 1 connection asked, have %d", asked)
				}
				if test.stays {
					conns.retain()
				}
				if test.wakes {
					c.Interrupt()
				}
				return copy(p, "\r\n"), nil
			})
			c.boundary.newlines = maxNewlines
			c.MarkFresh()
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			want := io.EOF
			switch {
			case test.wakes:
				want = ErrInterrupted
			case test.stays:
				want = os.ErrDeadlineExceeded
			}
			if _, err := c.Read(make([]byte, serverBuffer)); !errors.Is(err, want) {
				t.Errorf("want %v, have %v", want, err)
			}
			if len(answers) != 1 || (answers[0] == nil) != test.stays {
				t.Errorf("want one answer, have %v", answers)
			}
			for _, d := range answers {
				if d != nil {
					_ = d.Close()
				}
			}
		})
	}
}

// Of a connection that was asked, and stays, nobody sees that it was asked.
func TestAskedConnectionHasItsDeadlineAfterARead(t *testing.T) {
	var conns roster
	c, client := scriptedConn(t, &conns, func([]byte) (int, error) {
		conns.ask(math.MaxInt, 1, func(*Detached, bool) {})
		conns.retain()
		return 0, nil // as package net answers a Read into nothing
	})
	c.MarkFresh()
	if _, err := c.Read(nil); err != nil {
		t.Fatal(err)
	}
	say(t, client, "on")
	want(t, c, "on")
}

func TestInterruptOfAConnectionThatWasAsked(t *testing.T) {
	var conns roster
	var c *Conn
	c, client := scriptedConn(t, &conns, func(p []byte) (int, error) {
		conns.ask(math.MaxInt, 1, func(*Detached, bool) {})
		c.Interrupt()
		return copy(p, "x"), nil
	})
	c.MarkFresh()
	want(t, c, "x")
	time.AfterFunc(within, func() { client.Close() }) // else it would wait for ever
	if _, err := c.WriteTo(io.Discard); !errors.Is(err, ErrInterrupted) {
		t.Errorf("want ErrInterrupted, have %v", err)
	}
}
