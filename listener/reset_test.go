//go:build linux

package listener

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// A peer that has cut its connection has perhaps said more than its reader has taken: a relay that is stopped then still has both, and what
// it said is passed on, and then the cut, by the next.
func TestInvariant5RelayMovesAfterAReset(t *testing.T) {
	eachRelay(t, func(t *testing.T, r *relayed, moves bool) {
		if r.clients[0].LocalAddr().Network() != "tcp" {
			t.Skip("a Unix socket has no reset")
		}
		ctx, cancel := context.WithCancel(testContext(t))
		result := r.goRun(ctx)
		fill(t, r.clients[1])
		_ = r.clients[1].(*net.TCPConn).SetLinger(0)
		_ = r.clients[1].Close()
		for { // until the relay, which waits for the reader, knows
			say(t, r.clients[0], "question")
			r.ways[0].mu.Lock()
			broken := r.ways[0].broken
			r.ways[0].mu.Unlock()
			if broken != nil {
				if !errors.Is(broken, syscall.ECONNRESET) {
					t.Fatal(broken)
				}
				break
			}
		}
		cancel()
		if err := receive(t, result); !errors.Is(err, ErrInterrupted) {
			t.Fatalf("want ErrInterrupted, have %v", err)
		}
		if moves {
			r.move(t)
		}
		_, before := r.Passed()
		result = r.goRun(testContext(t))
		_ = r.clients[0].SetReadDeadline(time.Now().Add(within))
		if n, err := io.Copy(io.Discard, r.clients[0]); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("want ECONNRESET, have %d bytes, %v", n, err)
		}
		if err := receive(t, result); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("want ECONNRESET, have %v", err)
		}
		if _, passed := r.Passed(); passed <= before {
			t.Errorf("nothing was passed on beyond %d bytes", before)
		}
	})
}
