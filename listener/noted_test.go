//go:build linux

package listener

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/ledger"
)

// What the ledger says of a connection is what a predecessor may rely on when this process dies in that moment.
func TestInvariant5LedgerKnowsWhatWasTaken(t *testing.T) {
	book, err := ledger.New(1)
	if err != nil {
		t.Fatal(err)
	}
	slot := book.Slot(0)
	// awaitNote looks each millisecond: nothing tells when a word is written.
	awaitNote := func(moment string, want ledger.State, wantAhead string) {
		t.Helper()
		var have ledger.State
		var ahead []byte
		for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if have, ahead = slot.Read(); have == want && string(ahead) == wantAhead {
				return
			}
		}
		t.Fatalf("%s: want %d %q, have %d %q", moment, want, wantAhead, have, ahead)
	}
	first, second := twoServers(t, nil)
	c := dialServer(t, first)
	c.write("GET /?n=1 HTTP/1.1\r\nHost: test\r\n\r\n")
	c.expect(1, "1")
	first.ln.Pause()
	first.ln.Detach(math.MaxInt, func(d *Detached, _ bool) {
		d.Slot = slot
		if err := second.ln.Adopt(d); err != nil {
			t.Error(err)
		}
	})
	if err := first.ln.WaitConns(testContext(t)); err != nil {
		t.Fatal(err)
	}
	awaitNote("adopted", ledger.Untouched, "")
	for n := range 3 {
		c.write(fmt.Sprintf("GET /?n=%d&d=20ms HTTP/1.1\r\n", n))
		awaitNote("half a header", ledger.Used, "")
		c.write("Host: test\r\n\r\n")
		c.expect(2, fmt.Sprint(n))
		awaitNote("answered", ledger.Clean, "")
	}
	c.write("POST /?d=20ms&n=4 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\nGET")
	c.expect(2, "4")
	awaitNote("three bytes of the next request", ledger.Clean, "GET")
	c.write(" /?n=5 HTTP/1.1\r\nHost: test\r\n\r\n")
	c.expect(2, "5")
	awaitNote("answered", ledger.Clean, "")
	second.ln.Settle()
	c.write("GET /?n=6 HTTP/1.1\r\nHost: test\r\n\r\n") // the Read under way still notes it
	c.expect(2, "6")
	awaitNote("settled", ledger.Used, "")
	_ = c.conn.Close()
	if err := second.ln.WaitConns(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// A connection that its server has closed is not to be taken back.
func TestInvariant5LedgerOfAClosedConnection(t *testing.T) {
	book, err := ledger.New(1)
	if err != nil {
		t.Fatal(err)
	}
	first, second := twoServers(t, nil)
	c := dialServer(t, first)
	c.write("GET /?n=1 HTTP/1.1\r\nHost: test\r\n\r\n")
	c.expect(1, "1")
	first.ln.Pause()
	first.ln.Detach(math.MaxInt, func(d *Detached, _ bool) {
		d.Slot = book.Slot(0)
		if err := second.ln.Adopt(d); err != nil {
			t.Error(err)
		}
	})
	if err := first.ln.WaitConns(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if have := second.ln.CloseConns(); have != 1 {
		t.Errorf("closed: want 1, have %d", have)
	}
	if state, _ := book.Slot(0).Read(); state != ledger.Ended {
		t.Errorf("want it ended, have %d", state)
	}
}
