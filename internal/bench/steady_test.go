//go:build linux

package bench

import (
	"slices"
	"testing"
	"time"
)

const (
	connections = 64
	turnTime    = 25 * time.Millisecond
	lifetime    = 25 // in turns, of a server process
)

// BenchmarkHello compares servers that answer 13 bytes. One iteration is one turn of each.
func BenchmarkHello(b *testing.B) { compare(b, "net", "segue", hello) }

// BenchmarkHelloTimeouts is BenchmarkHello with ReadHeaderTimeout, WriteTimeout and IdleTimeout set.
func BenchmarkHelloTimeouts(b *testing.B) { compare(b, "net", "segue", hello, timeoutsVariable+"=1") }

// BenchmarkFile compares servers that answer a file of 1 MiB.
func BenchmarkFile(b *testing.B) { compare(b, "net", "segue", file, newFile(b)) }

// BenchmarkNothing compares net/http with itself: what its ratios differ from 1 is what this machine does to a measurement.
func BenchmarkNothing(b *testing.B) { compare(b, "net", "net", hello) }

func compare(b *testing.B, reference, subject, path string, environment ...string) {
	sides := [2]*side{
		{role: reference, path: path, environment: environment},
		{role: subject, path: path, environment: environment},
	}
	var rates, costs []float64
	for b.Loop() {
		if len(rates)%lifetime == 0 {
			// Neither how a process's memory happens to lie, nor which is the older, is to decide over a whole run.
			older := len(rates) / lifetime % 2
			sides[older].restart(b)
			sides[1-older].restart(b)
		}
		// Who goes first finds other things in the processor's caches, so they take turns at that, too.
		first := len(rates) % 2
		sides[first].turn(b)
		sides[1-first].turn(b)
		rates = append(rates, sides[1].rate()/sides[0].rate())
		costs = append(costs, sides[1].cost()/sides[0].cost())
	}
	report(b, "rps", rates)
	report(b, "cpu", costs)
	b.ReportMetric(sides[1].total.mallocs()-sides[0].total.mallocs(), "extra-allocs/req")
	b.ReportMetric(sides[0].total.rate(), "ref-req/s")
	b.ReportMetric(0, "ns/op") // of an iteration: says nothing
}

// side is one of the two that take turns.
type side struct {
	role, path  string
	environment []string

	server  *server
	clients []*client
	tally   // of the last turn
	total   tally
}

// restart makes it another process, and warm.
func (s *side) restart(b *testing.B) {
	if s.server != nil {
		for _, c := range s.clients {
			_ = c.conn.Close()
		}
		s.server.stop()
	}
	s.server = startServer(b, s.role, s.environment)
	s.clients = dialAll(b, s.server.address, s.path, connections)
	repeat(b, s.clients, 3)
}

func (s *side) turn(b *testing.B) {
	before := s.server.ask("count")
	n, took := turn(b, s.clients, turnTime)
	after := s.server.ask("count")
	s.tally = tally{n, took, after.CPU - before.CPU, after.Mallocs - before.Mallocs}
	s.total.requests += s.requests
	s.total.time += s.time
	s.total.cpu += s.cpu
	s.total.objects += s.objects
}

// tally is what a number of requests took.
type tally struct {
	requests int
	time     time.Duration
	cpu      time.Duration
	objects  uint64
}

func (t tally) rate() float64    { return float64(t.requests) / t.time.Seconds() }
func (t tally) cost() float64    { return t.cpu.Seconds() / float64(t.requests) }
func (t tally) mallocs() float64 { return float64(t.objects) / float64(t.requests) }

// report reports the median of ratios, and between what their middle half lies.
func report(b *testing.B, name string, ratios []float64) {
	b.ReportMetric(quantile(ratios, 0.5), name+"-ratio")
	b.ReportMetric(quantile(ratios, 0.25), name+"-p25")
	b.ReportMetric(quantile(ratios, 0.75), name+"-p75")
}

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	position := q * float64(len(sorted)-1)
	below := int(position)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (position-float64(below))*(sorted[above]-sorted[below])
}
