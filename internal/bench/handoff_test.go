//go:build linux

package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// BenchmarkHandoff compares what a client waits for: from the beginning of its connect to a front of examples/broker to the first byte of the answer that
// the backend gives. Of the two fronts one hands connections over, the other passes bytes on, as the first does when a handoff fails. The
// third way is the client's own connection to the backend. All take turns, so that whatever else the machine does hits all. An iteration is one
// connection of each kind.
func BenchmarkHandoff(b *testing.B) {
	directory := b.TempDir()
	build := exec.Command("go", "build", "-o", directory+"/", "./front", "./backend")
	build.Dir = "../../examples/broker"
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	socket := filepath.Join(directory, "handoff")
	backend := startProgram(b, filepath.Join(directory, "backend"), "-socket", socket)
	ways := []*way{
		{name: "handoff", address: startProgram(b, filepath.Join(directory, "front"), "-listen", "127.0.0.1:0", "-backend", socket)},
		{name: "reconnect", address: startProgram(b, filepath.Join(directory, "front"), "-listen", "127.0.0.1:0", "-reconnect", backend)},
		{name: "direct", address: backend},
	}
	for range 500 { // until pools are full and caches warm
		for _, w := range ways {
			w.sample(b)
		}
	}
	for _, w := range ways {
		w.took = nil
	}
	for n := 0; b.Loop(); n++ {
		for i := range ways {
			ways[(n+i)%len(ways)].sample(b) // who goes first finds other things in the processor's caches
		}
	}
	for _, q := range []struct {
		name  string
		share float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		for _, w := range ways {
			b.ReportMetric(quantile(w.took, q.share)*1e6, w.name+"-"+q.name+"-µs")
		}
		b.ReportMetric(quantile(ways[0].took, q.share)/quantile(ways[1].took, q.share), q.name+"-ratio")
	}
	// What else the machine does comes in bursts of milliseconds, which decide over the P99 of a whole run. So also by blocks: most have none.
	var ratios []float64
	for n := 0; n+block <= len(ways[0].took); n += block {
		ratios = append(ratios, quantile(ways[0].took[n:n+block], 0.99)/quantile(ways[1].took[n:n+block], 0.99))
	}
	if len(ratios) > 0 {
		report(b, "block-p99", ratios)
	}
	b.ReportMetric(0, "ns/op") // of an iteration: says nothing
}

// block is how many connections of each kind one ratio of block-p99 is of.
const block = 100

// way is one of the ways to the backend.
type way struct {
	name, address string
	took          []float64 // seconds
}

func (w *way) sample(b *testing.B) {
	began := time.Now()
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		b.Fatal(err)
	}
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil || first[0] != 'H' {
		b.Fatalf("%s: want H, have %q, %v", w.name, first, err)
	}
	w.took = append(w.took, time.Since(began).Seconds())
}

var listening = regexp.MustCompile(`msg=listening .*addr=(\S+)`)

// startProgram runs a program of examples/broker until the end of the test, and returns where it listens.
func startProgram(b *testing.B, path string, arguments ...string) (address string) {
	b.Helper()
	cmd := exec.Command(path, arguments...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	found, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if match := listening.FindStringSubmatch(lines.Text()); match != nil {
				found <- match[1]
			}
		}
	}()
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if err := cmd.Wait(); err != nil {
			b.Error(fmt.Errorf("%s: %w", path, err))
		}
	})
	select {
	case address = <-found:
	case <-ended:
		b.Fatalf("%s: ended before it listened", path)
	}
	return address
}
