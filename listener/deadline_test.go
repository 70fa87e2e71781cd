//go:build linux

package listener

import (
	"errors"
	"net"
	"testing"
	"time"
)

// However a deadline came to be, to take it away takes it away.
func TestNoDeadlineIsNone(t *testing.T) {
	for _, test := range []struct {
		name  string
		limit func(*Conn)
	}{
		{"there was none", func(*Conn) {}},
		{"set", func(c *Conn) { _ = c.SetReadDeadline(past) }},
		{"set for both directions", func(c *Conn) { _ = c.SetDeadline(past) }},
		{"set on what is inside", func(c *Conn) { _ = c.NetConn().SetReadDeadline(past) }},
		{"set on what was inside when there was none", func(c *Conn) {
			inner := c.NetConn()
			_ = c.SetReadDeadline(time.Time{})
			_ = inner.SetReadDeadline(past)
		}},
		{"set by who wanted it", func(c *Conn) {
			c.Interrupt()
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrInterrupted) {
				t.Errorf("want ErrInterrupted, have %v", err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, conn, client := rawPair(t)
			test.limit(conn)
			if err := conn.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			say(t, client, "on")
			want(t, conn, "on")
		})
	}
}

func TestNoDeadlineIsNoneOfAStray(t *testing.T) {
	_, accepted, client := rawPair(t)
	inner := accepted.NetConn()
	_ = inner.SetReadDeadline(past)
	var strays Strays
	conn := must(strays.Add(inner))(t)
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	say(t, client, "on")
	want(t, conn, "on")
}

func TestClosedConnHasNoDeadlines(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(*Conn)
	}{
		{"Close", func(c *Conn) { _ = c.Close() }},
		{"abort", (*Conn).abort},
		{"DetachConns", func(c *Conn) {
			for _, d := range must(DetachConns(c))(t) {
				_ = d.Close()
			}
		}},
	} {
		_, conn, _ := rawPair(t)
		test.end(conn)
		for _, deadline := range []time.Time{{}, past, {}} {
			if err := conn.SetReadDeadline(deadline); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: SetReadDeadline(%v): want ErrClosed, have %v", test.name, deadline, err)
			}
		}
	}
}
