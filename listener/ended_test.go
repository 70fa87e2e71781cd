//go:build linux

package listener

import (
	"errors"
	"io"
	"net"
	"testing"
)

// What moves away has not ended, and what has ended has ended once.
func TestEndedCountsWhatIsClosedHere(t *testing.T) {
	first, second := twoServers(t, nil)
	const moved, closed, cut = 3, 2, 4
	dial := func(n int) (conns []net.Conn) {
		for range n {
			conns = append(conns, must(net.Dial("tcp", first.ln.Addr().String()))(t))
			t.Cleanup(func() { conns[len(conns)-1].Close() })
		}
		return conns
	}
	ended := func(s *server) int { return int(s.ln.set.Ended()) }

	dial(moved)
	for first.ln.Conns() < moved {
	}
	first.moveTo(t, second)
	if ended(first) != 0 || ended(second) != 0 {
		t.Errorf("moved: want none ended, have %d and %d", ended(first), ended(second))
	}
	second.moveTo(t, first)
	for _, c := range dial(closed) {
		c.Close()
	}
	for ended(first) < closed {
	}
	dial(cut)
	for first.ln.Conns() < moved+cut {
	}
	first.ln.CloseConns() // and so does the server
	if err := first.ln.WaitConns(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if want, have := moved+closed+cut, ended(first); want != have {
		t.Errorf("want %d ended, have %d", want, have)
	}
	if want, have := moved+closed+cut, int(first.ln.Ended()); want != have {
		t.Errorf("of the listener: want %d ended, have %d", want, have)
	}
}

// A connection with which Adopt fails is closed, and has not ended here: nobody has served it.
func TestEndedDoesNotCountWhatCouldNotBeAdopted(t *testing.T) {
	ln, conn, client := rawPair(t)
	d := must(DetachConns(conn))(t)[0]
	_ = ln.Adopted().Close()
	if err := ln.Adopt(d); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("want net.ErrClosed, have %v", err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("want EOF, have %v", err)
	}
	if ended, open := ln.set.Ended(), ln.Conns(); ended != 0 || open != 0 {
		t.Errorf("want none ended and none open, have %d and %d", ended, open)
	}
}

func TestStraysEnd(t *testing.T) {
	var from, to Strays
	_, _, client := rawPair(t)
	moves := must(from.Add(client))(t)
	d := must(DetachConns(moves))(t)[0]
	c := must(to.AdoptConn(d))(t)
	c.Close()
	c.Close()
	if from.Ended() != 0 || to.Ended() != 1 {
		t.Errorf("want 0 and 1 ended, have %d and %d", from.Ended(), to.Ended())
	}
}
