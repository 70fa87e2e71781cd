//go:build linux

package listener

import (
	"io"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/ledger"
)

// A line end after a body is no request: the idle time of a connection goes on if nothing else waits when it is adopted.
func TestIdleTimeoutGoesOnAfterALineEnd(t *testing.T) {
	const idle = 400 * time.Millisecond
	first, second := twoServers(t, func(srv *http.Server) { srv.IdleTimeout = idle })
	c := dialServer(t, first)
	c.write(get(1))
	c.expect(1, "1")
	answered := time.Now()
	_ = c.conn.SetDeadline(answered.Add(idle + 5*time.Second))
	first.ln.Pause()
	first.ln.Detach(math.MaxInt, func(d *Detached, _ bool) {
		c.write("\r\n")
		if err := second.ln.Adopt(d); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.reader.ReadByte(); err != io.EOF {
		t.Fatalf("want the end of the idle connection, have %v", err)
	}
	if lasted := time.Since(answered); lasted < idle-50*time.Millisecond {
		t.Errorf("want it closed after %v, have %v", idle, lasted)
	}
}

// A connection on which nothing but a line end has come can be taken back.
func TestInvariant3LedgerOfAConnectionWithALineEnd(t *testing.T) {
	book, err := ledger.New(1)
	if err != nil {
		t.Fatal(err)
	}
	first, second := twoServers(t, nil)
	c := dialServer(t, first)
	c.write(get(1))
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
	c.write("\r\n")
	for deadline := time.Now().Add(within); ; time.Sleep(time.Millisecond) { // nothing tells when a word is written
		if state, ahead := book.Slot(0).Read(); state == ledger.Clean && len(ahead) == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("want a clean connection, have %d %q", state, ahead)
		}
	}
	c.write(get(2))
	c.expect(2, "2")
	second.ln.Settle()
	_ = c.conn.Close()
	if err := second.ln.WaitConns(testContext(t)); err != nil {
		t.Fatal(err)
	}
}
