//go:build linux

package listener

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/segue-go/segue/internal/ledger"
)

// adoptedPair returns a connection that is in its second process, the roster that it is on, and its client.
func adoptedPair(t *testing.T) (*Strays, *Conn, net.Conn) {
	t.Helper()
	_, conn, client := rawPair(t)
	strays := &Strays{}
	c := must(strays.AdoptConn(must(DetachConns(conn))(t)[0]))(t)
	t.Cleanup(func() { c.Close() })
	return strays, c, client
}

// Invariant 1: what is another process's is not shut down here, not even if the goroutine that detached it has not closed it yet.
func TestInvariant1NothingEndsWhatIsDetached(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(*Strays, *Conn)
	}{
		{"CloseConns", func(s *Strays, _ *Conn) {
			if n := s.CloseConns(); n != 0 {
				t.Errorf("CloseConns: want none closed, have %d", n)
			}
		}},
		{"Close", func(_ *Strays, c *Conn) { c.Close() }},
		{"abort", func(_ *Strays, c *Conn) { c.abort() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			strays, c, client := adoptedPair(t)
			d := must(c.boundary.release(c))(t) // the first half of DetachConns
			test.end(strays, c)
			c.Close() // the second
			var next Strays
			there := must(next.AdoptConn(d))(t)
			defer there.Close()
			say(t, there, "on")
			want(t, client, "on")
			if strays.Conns() != 0 || strays.Ended() != 0 {
				t.Errorf("want none open and none ended, have %d and %d", strays.Conns(), strays.Ended())
			}
		})
	}
}

func TestNothingDetachesWhatEnds(t *testing.T) {
	_, c, _ := adoptedPair(t)
	c.MarkIdle()
	c.boundary.end() // the first half of Close
	if _, err := DetachConns(c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("want net.ErrClosed, have %v", err)
	}
	c.boundary.mu.Lock()
	d := c.boundary.detach(c, serverBuffer)
	c.boundary.mu.Unlock()
	if d != nil {
		t.Error("a server's connection was detached")
	}
}

// Who could not detach all of several connections has them all again. One of them may have been seen by CloseConns while it was detached.
func TestWhatIsKeptAfterAllIsClosedIfItWasToBe(t *testing.T) {
	strays, c, client := adoptedPair(t)
	d := must(c.boundary.release(c))(t)
	strays.CloseConns()
	c.keep(d)
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("want EOF, have %v", err)
	}
	if strays.Conns() != 0 || strays.Ended() != 1 {
		t.Errorf("want none open and 1 ended, have %d and %d", strays.Conns(), strays.Ended())
	}
	_, c, client = adoptedPair(t)
	if _, err := DetachConns(c, c); !errors.Is(err, ErrDetached) {
		t.Fatalf("want ErrDetached, have %v", err)
	}
	say(t, c, "on") // nobody wanted it closed
	want(t, client, "on")
}

// However the end of a drain and DetachConns meet: one of the two has the connection.
func TestInvariant1CloseConnsAndDetachConnsAgree(t *testing.T) {
	for range 200 {
		strays, c, client := adoptedPair(t)
		var both sync.WaitGroup
		closed := 0
		both.Go(func() { closed = strays.CloseConns() })
		list, err := DetachConns(c)
		both.Wait()
		if (err == nil) != (closed == 0) || strays.Ended() != uint64(closed) {
			t.Fatalf("DetachConns: %v; CloseConns: %d, of which ended %d", err, closed, strays.Ended())
		}
		if err != nil {
			continue
		}
		var next Strays
		there := must(next.AdoptConn(list[0]))(t)
		say(t, there, "on")
		want(t, client, "on")
		there.Close()
	}
}

// From the first moment of its end on, a connection is not noted as one that can be taken back, whoever reads it. When it is closed, that is noted,
// and stays.
func TestInvariant5LedgerOfAConnectionThatEnds(t *testing.T) {
	book := must(ledger.New(1))(t)
	defer book.Close()
	for _, test := range []struct {
		name string
		end  func(*Strays, *Conn)
	}{
		{"Close", func(_ *Strays, c *Conn) { c.Close() }},
		{"CloseConns", func(s *Strays, _ *Conn) { s.CloseConns() }},
		{"abort", func(_ *Strays, c *Conn) { c.abort() }},
	} {
		strays, c, _ := adoptedPair(t)
		slot := book.Slot(0)
		slot.Clean(nil)
		c.boundary.slot = slot
		noted := func(moment string, want ledger.State) {
			t.Helper()
			if have, _ := slot.Read(); want != have {
				t.Errorf("%s: %s: want %d, have %d", test.name, moment, want, have)
			}
		}
		c.MarkIdle()
		c.boundary.end() // the first half
		noted("begun", ledger.Used)
		c.boundary.enter(c, serverBuffer)
		noted("begun, and somebody reads", ledger.Used)
		test.end(strays, c)
		noted("closed", ledger.Ended)
		if _, err := c.Read(make([]byte, serverBuffer)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: Read: want net.ErrClosed, have %v", test.name, err)
		}
		c.Close()
		strays.CloseConns()
		noted("closed again", ledger.Ended)
	}
}
