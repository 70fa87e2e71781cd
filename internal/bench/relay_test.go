//go:build linux

package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// upstreamVariable is where the plain proxy dials.
const upstreamVariable = "SEGUE_BENCH_UPSTREAM"

// playCopyProxy is what examples/tcpproxy is compared with: io.Copy both ways. It says where it listens, and ends with its standard input.
func playCopyProxy() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				upstream, err := net.Dial("tcp", os.Getenv(upstreamVariable))
				if err != nil {
					return
				}
				defer upstream.Close()
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = io.Copy(upstream, client)
					_ = upstream.(*net.TCPConn).CloseWrite()
				}()
				_, _ = io.Copy(client, upstream)
				_ = client.(*net.TCPConn).CloseWrite()
				<-done
			}()
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// relaying is one of the proxies, with connections through it.
type relaying struct {
	pid     int
	address string
	pairs   [][2]net.Conn // client and upstream
	stop    func()
}

// startTCPProxy starts examples/tcpproxy, perhaps below tracer.
func startTCPProxy(t testing.TB, upstream string, tracer ...string) *relaying {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "tcpproxy")
	if out, err := exec.Command("go", "build", "-o", binary, "../../examples/tcpproxy").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	command := append(tracer, binary, "-listen", "127.0.0.1:0", "-upstream", upstream, "-pidfile", pidFile, "-drain", "0")
	cmd := exec.Command(command[0], command[1:]...)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := new(relaying)
	r.stop = sync.OnceFunc(func() {
		_ = syscall.Kill(r.pid, syscall.SIGTERM)
		_ = cmd.Wait()
	})
	t.Cleanup(func() {
		if r.pid != 0 {
			r.stop()
		}
	})
	lines := bufio.NewScanner(log)
	listening := regexp.MustCompile(`msg=listening pid=(\d+) addr=(\S+)`)
	for lines.Scan() {
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			r.pid, _ = strconv.Atoi(found[1])
			r.address = found[2]
		}
		if strings.Contains(lines.Text(), "msg=serving") {
			break
		}
	}
	if r.address == "" {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("tcpproxy: no address: %v", lines.Err())
	}
	go func() {
		for lines.Scan() { // it is not to wait for a reader
		}
	}()
	return r
}

func startCopyProxy(t testing.TB, upstream string) *relaying {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), roleVariable+"=copyproxy", upstreamVariable+"="+upstream)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &relaying{pid: cmd.Process.Pid, stop: sync.OnceFunc(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})}
	t.Cleanup(r.stop)
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("plain proxy: no address: %v", lines.Err())
	}
	r.address = lines.Text()
	return r
}

// connect makes n connections through the proxy.
func (r *relaying) connect(t testing.TB, upstream net.Listener, n int) {
	t.Helper()
	for range n {
		client, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		server, err := upstream.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		r.pairs = append(r.pairs, [2]net.Conn{client, server})
	}
}

const (
	relayConns = 4
	relayTurn  = 32 << 20 // bytes, each way, of each connection
)

// turn sends size bytes both ways on all connections, and returns how long that took, and the proxy's processor time.
func (r *relaying) turn(t testing.TB, size int) (took, cpu time.Duration) {
	t.Helper()
	before, began := processorTime(t, r.pid), time.Now()
	var work sync.WaitGroup
	failures := make(chan error, 4*len(r.pairs))
	for _, pair := range r.pairs {
		for i, conn := range pair {
			work.Go(func() {
				data := make([]byte, 256<<10)
				for left := size; left > 0; left -= len(data) {
					if _, err := conn.Write(data); err != nil {
						failures <- err
						_ = conn.Close()
						return
					}
				}
			})
			work.Go(func() {
				if err := receive(pair[1-i], size); err != nil {
					failures <- err
					_, _ = conn.Close(), pair[1-i].Close()
				}
			})
		}
	}
	work.Wait()
	took = time.Since(began)
	select {
	case err := <-failures:
		t.Fatal(err)
	default:
	}
	return took, processorTime(t, r.pid) - before
}

func receive(conn net.Conn, size int) error {
	buffer := make([]byte, 256<<10)
	for left := size; left > 0; {
		n, err := conn.Read(buffer[:min(left, len(buffer))])
		left -= n
		if err != nil {
			return errors.Join(fmt.Errorf("%d bytes are missing", left), err)
		}
	}
	return nil
}

// processorTime is what the threads of a process have used (the first field of schedstat, see proc(5): it is finer than times(2)'s).
func processorTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	var sum time.Duration
	for _, path := range threads {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		first, _, _ := strings.Cut(string(content), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// BenchmarkRelay compares examples/tcpproxy with a proxy that is io.Copy both ways. One iteration is one turn of each.
func BenchmarkRelay(b *testing.B) {
	benchmarkRelay(b, func(upstream string) *relaying { return startTCPProxy(b, upstream) })
}

// BenchmarkRelayNothing compares the plain proxy with itself: what its ratios differ from 1 is what this machine does to a measurement.
func BenchmarkRelayNothing(b *testing.B) {
	benchmarkRelay(b, func(upstream string) *relaying { return startCopyProxy(b, upstream) })
}

func benchmarkRelay(b *testing.B, subject func(upstream string) *relaying) {
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer upstream.Close()
	address := upstream.Addr().String()
	sides := [2]*relaying{startCopyProxy(b, address), subject(address)}
	for _, side := range sides {
		side.connect(b, upstream, relayConns)
		side.turn(b, relayTurn) // warm
	}
	var rates, costs []float64
	var total [2]time.Duration
	for b.Loop() {
		var took, cpu [2]time.Duration
		first := len(rates) % 2 // who goes first finds other things in the processor's caches
		for _, side := range []int{first, 1 - first} {
			took[side], cpu[side] = sides[side].turn(b, relayTurn)
			total[side] += took[side]
		}
		rates = append(rates, float64(took[0])/float64(took[1]))
		costs = append(costs, float64(cpu[1])/float64(cpu[0]))
	}
	report(b, "throughput", rates)
	report(b, "cpu", costs)
	const turn = 2 * relayConns * relayTurn
	b.ReportMetric(turn*float64(len(rates))/1e6/total[0].Seconds(), "ref-MB/s")
	b.ReportMetric(0, "ns/op") // of an iteration: says nothing
}

// All bytes that examples/tcpproxy passes on, both ways, go by splice: into a pipe and out again.
func TestInvariant9ProxyRelaysBySplice(t *testing.T) {
	tracer, trace := strace(t)
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	r := startTCPProxy(t, upstream.Addr().String(), tracer...)
	r.connect(t, upstream, 1)
	const size = 2 << 20
	r.turn(t, size)
	r.stop()
	const through, ways = 2, 2
	if have := readTrace(t, trace)[""]["splice"]; have != through*ways*size {
		t.Errorf("%d bytes by splice, want %d", have, through*ways*size)
	}
}
