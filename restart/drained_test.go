//go:build linux || darwin || freebsd

package restart

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/segue-go/segue/listener"
)

// What the generation has dialed itself counts like what it has accepted.
func TestReportTellsConnectionsThatEndedFromThoseThatWereCut(t *testing.T) {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	const accepted, acceptedCut, dialed, dialedCut = 3, 1, 1, 2
	serving := make(chan struct{}, accepted+acceptedCut)
	serve := func(g *Generation) *listener.Listener {
		ln, err := g.Listen(t.Context(), "raw", "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		g.Conns(ln, func(_ context.Context, c *listener.Conn) {
			serving <- struct{}{}
			_, _ = io.Copy(io.Discard, c)
		})
		return ln
	}
	dial := func(address net.Addr) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", address.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	g := newTwin(t)
	g.options.Drain = time.Millisecond
	var final *Report
	g.options.Observer.Drained = func(r *Report) { final = r } // before Run returns
	ln := serve(g)
	var own []*listener.Conn
	for range dialed + dialedCut {
		c, err := g.Own(dial(backend.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		own = append(own, c)
	}
	first := runFirst(t, g)
	var clients []net.Conn
	for range accepted + acceptedCut {
		clients = append(clients, dial(ln.Addr()))
		<-serving
	}
	first.upgrade(t, func(next *Generation) { serve(next) })
	for _, c := range own[:dialed] {
		c.Close()
	}
	for _, c := range clients[:accepted] {
		c.Close()
	}
	for ln.Conns() > acceptedCut {
		time.Sleep(time.Millisecond) // there is no event
	}
	first.leave()
	if final.Drained != accepted+dialed || final.Cut != acceptedCut+dialedCut {
		t.Errorf("want %d drained and %d cut, have %d and %d", accepted+dialed, acceptedCut+dialedCut, final.Drained, final.Cut)
	}
}
