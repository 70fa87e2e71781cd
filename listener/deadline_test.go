//go:build linux

package listener

import (
	"errors"
	"io"
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
		{"set by who got what is inside to read from", func(c *Conn) {
			if _, err := c.WriteTo(limiter{}); err != nil {
				t.Error(err)
			}
		}},
		{"set by who got what is inside to write to", func(c *Conn) {
			if _, err := c.ReadFrom(limiter{}); err != nil {
				t.Error(err)
			}
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

// limiter sets a deadline on what it is to copy from or to, as a proxy may do, and copies nothing.
type limiter struct {
	io.Reader
	io.Writer
}

func (limiter) ReadFrom(r io.Reader) (int64, error) {
	return 0, r.(interface{ SetReadDeadline(time.Time) error }).SetReadDeadline(past)
}

func (limiter) WriteTo(w io.Writer) (int64, error) {
	return 0, w.(interface{ SetDeadline(time.Time) error }).SetDeadline(past)
}

// What was a connection before it was a Conn may have a deadline.
func TestNoDeadlineIsNoneOfWhatWasGiven(t *testing.T) {
	for _, test := range []struct {
		name string
		give func(*Listener, net.Conn) *Conn
	}{
		{"Strays.Add", func(_ *Listener, given net.Conn) *Conn {
			var strays Strays
			_ = given.SetReadDeadline(past)
			return must(strays.Add(given))(t)
		}},
		{"Strays.Add, and set later", func(_ *Listener, given net.Conn) *Conn {
			var strays Strays
			conn := must(strays.Add(given))(t)
			_ = conn.SetReadDeadline(time.Time{})
			_ = given.SetReadDeadline(past)
			return conn
		}},
		{"Expect", func(ln *Listener, given net.Conn) *Conn {
			_ = given.SetReadDeadline(past)
			arrival := must(ln.Expect(given))(t)
			if err := arrival.Serve(); err != nil {
				t.Fatal(err)
			}
			return must(ln.Adopted().Accept())(t).(*Conn)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ln, _, _ := rawPair(t)
			given, client := arriving(t, "tcp", "127.0.0.1:0")
			conn := test.give(ln, given)
			defer conn.Close()
			if err := conn.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			say(t, client, "on")
			want(t, conn, "on")
		})
	}
}

func TestClosedConnHasNoDeadlines(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(*Listener, *Conn)
	}{
		{"Close", func(_ *Listener, c *Conn) { _ = c.Close() }},
		{"CloseConns", func(ln *Listener, _ *Conn) { ln.CloseConns() }},
		{"abort", func(_ *Listener, c *Conn) { c.abort() }},
		{"DetachConns", func(_ *Listener, c *Conn) {
			for _, d := range must(DetachConns(c))(t) {
				_ = d.Close()
			}
		}},
	} {
		ln, conn, _ := rawPair(t)
		test.end(ln, conn)
		for _, deadline := range []time.Time{{}, past, {}} {
			if err := conn.SetReadDeadline(deadline); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: SetReadDeadline(%v): want ErrClosed, have %v", test.name, deadline, err)
			}
		}
	}
}
