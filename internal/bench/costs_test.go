//go:build linux

package bench

import (
	"math"
	"testing"
	"unsafe"

	"github.com/segue-go/segue/listener"
)

// mallocsPerRequest is how many allocations a server needs for a request on a connection that is open.
func mallocsPerRequest(t testing.TB, role, path string, requests int, environment ...string) float64 {
	t.Helper()
	s := startServer(t, role, environment)
	defer s.stop()
	clients := dialAll(t, s.address, path, 4)
	repeat(t, clients, 50)  // until the pools are full and the maps are grown
	before := s.ask("hold") // a collection would empty the pools
	repeat(t, clients, requests/len(clients))
	after := s.ask("count")
	return float64(after.Mallocs-before.Mallocs) / float64(requests)
}

// Invariant 9: no additional allocation per request.
func TestInvariant9Allocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, tt := range []struct {
		name, path, environment string
		requests                int
	}{
		{"hello", hello, "", 20_000},
		{"hello with timeouts", hello, timeoutsVariable + "=1", 20_000},
		{"file", file, newFile(t), 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plain := mallocsPerRequest(t, "net", tt.path, tt.requests, tt.environment)
			segue := mallocsPerRequest(t, "segue", tt.path, tt.requests, tt.environment)
			t.Logf("allocations per request: net/http %.3f, Segue %.3f", plain, segue)
			// Pools and timers make fractions of an allocation per request, on both sides.
			if extra := segue - plain; math.Round(extra*10) > 0 {
				t.Errorf("%.3f allocations per request more than net/http, want 0", extra)
			}
		})
	}
}

// footprint is what an idle connection takes of a server's memory, in bytes.
type footprint struct{ heap, stack float64 }

func (f footprint) total() float64 { return f.heap + f.stack }

// measureIdle opens n connections, has one request answered on each, and compares the server's memory with what it was.
func measureIdle(t testing.TB, role string, n int, environment ...string) footprint {
	t.Helper()
	s := startServer(t, role, environment)
	defer s.stop()
	warm := dialAll(t, s.address, hello, 100)
	repeat(t, warm, 10)
	before := s.ask("live")
	clients := dialAll(t, s.address, hello, n)
	repeat(t, clients, 1)
	after := s.ask("live")
	for _, c := range append(warm, clients...) {
		_ = c.conn.Close()
	}
	each := func(before, after uint64) float64 { return (float64(after) - float64(before)) / float64(n) }
	return footprint{heap: each(before.Heap, after.Heap), stack: each(before.Stacks, after.Stacks)}
}

// Invariant 9: 256 bytes at most for a connection.
func TestInvariant9IdleConnections(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs memory")
	}
	const n = 4000
	for _, tt := range []struct{ name, environment string }{
		{"plain", ""},
		{"timeouts", timeoutsVariable + "=1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Which stacks a collection finds in a state to be shrunk is chance, worth up to some 300 bytes on either side. What a
			// connection really takes shows every time, so one measurement of three may say that it is little enough.
			for range 3 {
				plain, segue := measureIdle(t, "net", n, tt.environment), measureIdle(t, "segue", n, tt.environment)
				extra := footprint{segue.heap - plain.heap, segue.stack - plain.stack}
				t.Logf("bytes per idle connection: net/http %.0f + %.0f of stack, Segue %.0f + %.0f more",
					plain.heap, plain.stack, extra.heap, extra.stack)
				if extra.heap > 256 {
					t.Errorf("%.0f bytes of heap per connection more than net/http, want 256 at most", extra.heap)
				}
				if extra.total() <= 256 {
					return
				}
			}
			t.Error("more than 256 bytes per connection more than net/http, three times")
		})
	}
	if size := unsafe.Sizeof(listener.Conn{}); size > 256 {
		t.Errorf("a Conn has %d bytes, want 256 at most", size)
	}
}

// BenchmarkIdle measures the memory of 15 000 idle connections. An iteration is one measurement of each server.
func BenchmarkIdle(b *testing.B) {
	const n = 15_000
	var plain, extra []float64
	for b.Loop() {
		p, s := measureIdle(b, "net", n), measureIdle(b, "segue", n)
		plain = append(plain, p.total())
		extra = append(extra, s.total()-p.total())
	}
	b.ReportMetric(quantile(plain, 0.5), "ref-B/conn")
	b.ReportMetric(quantile(extra, 0.5), "extra-B/conn")
	b.ReportMetric(float64(unsafe.Sizeof(listener.Conn{})), "sizeof-Conn-B")
	b.ReportMetric(0, "ns/op")
}
