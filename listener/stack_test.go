//go:build linux && !race

// The race detector makes frames larger than they are.

package listener

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/ledger"
)

// A connection that waits for its next request on probation does so with a stack as small as that of one that was accepted: 4 KiB.
func TestIdleConnectionOnProbationHasASmallStack(t *testing.T) {
	const clients, small = 1000, 4 << 10
	first, second := twoServers(t, nil)
	for range clients {
		c := dialServer(t, first)
		c.write("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
		c.expect(1, "")
	}
	book := must(ledger.New(clients))(t) // not closed: the connections write into it until they end, after the test
	away := make(chan *Detached, clients)
	first.ln.Detach(clients, func(d *Detached, _ bool) { away <- d })
	for i := range clients {
		d := <-away
		d.Slot = book.Slot(i)
		if err := second.ln.Adopt(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.ln.WaitConns(testContext(t)); err != nil {
		t.Fatal(err)
	}
	awaitWaiting(t, clients, "listener.readNoted(")
	runtime.GC() // gives back what the first server's goroutines had
	var have runtime.MemStats
	runtime.ReadMemStats(&have)
	if each := have.StackInuse / clients; each > small*3/2 {
		t.Errorf("want stacks of %d bytes, have %d for each connection", small, each)
	}
}

// awaitWaiting returns when n goroutines wait for the network in a function. Nothing but their stacks tells.
func awaitWaiting(t *testing.T, n int, function string) {
	t.Helper()
	dump := make([]byte, n*8<<10)
	for deadline := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		waiting := 0
		for goroutine := range bytes.SplitSeq(dump[:runtime.Stack(dump, true)], []byte("\n\n")) {
			if bytes.Contains(goroutine, []byte("[IO wait]")) && bytes.Contains(goroutine, []byte(function)) {
				waiting++
			}
		}
		if waiting == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("want %d goroutines waiting in %s, have %d", n, function, waiting)
		}
	}
}
