//go:build linux

package listener

import (
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
}
