//go:build linux

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/restart"
)

// countRequests adds what counts: /count a request, /ticks a thousand times a second for as long as the client stays. /counter
// tells the value, which is the sum of both, and counts nothing.
func countRequests(gen *restart.Generation, mux *http.ServeMux) error {
	counter, err := gen.Counter("requests")
	if err != nil {
		return err
	}
	mux.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		counter.Add(1)
		fmt.Fprintf(w, "%d %d\n", counter.Value(), os.Getpid())
	})
	mux.HandleFunc("/counter", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%d %d\n", counter.Value(), os.Getpid())
	})
	mux.HandleFunc("/ticks", func(w http.ResponseWriter, r *http.Request) {
		next := time.NewTicker(time.Millisecond)
		defer next.Stop()
		for r.Context().Err() == nil {
			<-next.C
			counter.Add(1)
			fmt.Fprintf(w, "%d %d\n", counter.Value(), os.Getpid())
			_ = http.NewResponseController(w).Flush()
		}
	})
	return nil
}

// counted asks for the counter, over a connection of its own.
func (s *service) counted() (value uint64, pid int) {
	s.t.Helper()
	if _, err := fmt.Sscan(s.get("/counter"), &value, &pid); err != nil {
		s.t.Fatal(err)
	}
	return value, pid
}

// countingClients make requests that count, until they are stopped.
type countingClients struct {
	t       *testing.T
	address string
	stop    chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex
	answers map[int]uint64 // by pid
}

// startCounting starts clients that keep their connection, each of which has had an answer then, and clients that make a
// new one for each request.
func (s *service) startCounting(kept, fresh int, mayFail bool) *countingClients {
	s.t.Helper()
	c := &countingClients{t: s.t, address: s.address, stop: make(chan struct{}), answers: make(map[int]uint64)}
	for range kept {
		conn, err := net.DialTimeout("tcp", c.address, patience)
		if err != nil {
			s.t.Fatal(err)
		}
		k := &countingConn{clients: c, conn: conn, reader: bufio.NewReader(conn)}
		if err := k.ask(); err != nil {
			s.t.Fatal(err)
		}
		c.running.Go(func() {
			defer conn.Close()
			for !c.stopped() {
				err := k.ask()
				if errors.Is(err, errWentBack) && mayFail {
					continue // it was a generation's that has been rolled back
				}
				if err != nil {
					if !mayFail {
						s.t.Errorf("kept connection: %v", err)
					}
					return
				}
			}
		})
	}
	for range fresh {
		c.running.Go(func() {
			for !c.stopped() {
				if _, err := c.askOnce(s); err != nil && !mayFail {
					s.t.Errorf("fresh connection: %v", err)
				}
			}
		})
	}
	return c
}

func (c *countingClients) askOnce(s *service) (value uint64, err error) {
	body, err := s.tryGet("/count")
	if err != nil {
		return 0, err
	}
	return c.answer(body)
}

// answer notes one.
func (c *countingClients) answer(body string) (value uint64, err error) {
	var pid int
	if _, err := fmt.Sscan(body, &value, &pid); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[pid]++
	return value, nil
}

func (c *countingClients) stopped() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

// countingConn is a connection that moves, and sees the counter grow with each request.
type countingConn struct {
	clients *countingClients
	conn    net.Conn
	reader  *bufio.Reader
	seen    uint64
}

func (k *countingConn) ask() error {
	_ = k.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(k.conn, "GET /count HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		return err
	}
	response, err := http.ReadResponse(k.reader, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	value, err := k.clients.answer(string(body))
	if err != nil {
		return err
	}
	seen := k.seen
	if k.seen = value; value <= seen {
		return fmt.Errorf("%w: want more than %d, have %d", errWentBack, seen, value)
	}
	if response.Close {
		return errors.New("the end of the connection was announced")
	}
	return nil
}

var errWentBack = errors.New("counter went back")

// end stops the clients, and returns how many answers each process gave.
func (c *countingClients) end() map[int]uint64 {
	close(c.stop)
	c.running.Wait()
	return c.answers
}

// wantCounted waits until the serving generation has counted that much, and expects no more: it may not have read yet what a
// predecessor said last that has gone.
func (s *service) wantCounted(want uint64) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	have, _ := s.counted()
	for ; have < want && time.Now().Before(deadline); have, _ = s.counted() {
		time.Sleep(time.Millisecond)
	}
	if want != have {
		s.t.Errorf("want %d counted, have %d", want, have)
	}
}

func sum(answers map[int]uint64) (all uint64) {
	for _, n := range answers {
		all += n
	}
	return all
}

// awaitAnswer returns when a client of these had one of that process.
func (c *countingClients) awaitAnswer(pid int) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		c.mu.Lock()
		n := c.answers[pid]
		c.mu.Unlock()
		if n > 0 {
			return
		}
	}
	c.t.Fatalf("process %d answered nobody", pid)
}

// Each answer that a client got was counted once, whichever generation gave it.
func TestCountersAreExactThroughUpgradesUnderLoad(t *testing.T) {
	s := startService(t, config{Probation: 20 * time.Millisecond, Drain: patience})
	clients := s.startCounting(10, 2, false)
	for number := 2; number <= 6; number++ {
		before := s.pid()
		clients.awaitAnswer(before)
		s.hangup(number)
		awaitExit(t, before)
	}
	clients.awaitAnswer(s.pid())
	answers := clients.end()
	t.Logf("%d requests, by process: %v", sum(answers), answers)
	s.wantCounted(sum(answers))
}

// What a generation counts that is rolled back is gone with it. Its predecessor's own count is exact, and so is that of the
// next one that turns out well.
func TestCountersGoOnAfterARollback(t *testing.T) {
	for _, fault := range []string{"unhealthy", "crash on probation"} {
		t.Run(fault, func(t *testing.T) {
			s := startService(t, config{Probation: 300 * time.Millisecond, Drain: patience})
			first := s.pid()
			clients := s.startCounting(5, 2, true)
			clients.awaitAnswer(first)
			s.setFault(fault)
			failed := s.upgrade()
			if failed.Error == "" {
				t.Fatal("want the upgrade rolled back")
			}
			answers := clients.end()
			t.Logf("%d requests, by process: %v", sum(answers), answers)
			s.wantCounted(answers[first])

			s.setFault("")
			clients = s.startCounting(5, 2, false)
			clients.awaitAnswer(first)
			s.hangup(2)
			awaitExit(t, first)
			clients.awaitAnswer(s.pid())
			s.wantCounted(answers[first] + sum(clients.end()))
		})
	}
}

// A predecessor that is killed while it drains takes with it what it had not told yet, and nothing of what it had.
func TestCountersKeepWhatADeadPredecessorHadTold(t *testing.T) {
	s := startService(t, config{Probation: -1, Drain: patience})
	first := s.pid()
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /ticks HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, conn)
	second := s.hangup(2).PID
	offered, pid := s.counted()
	if pid != second {
		t.Fatalf("want an answer of pid %d, have %d", second, pid)
	}
	seen := offered
	grow := func(at uint64) {
		t.Helper()
		for deadline := time.Now().Add(patience); seen < at; time.Sleep(time.Millisecond) {
			have, _ := s.counted()
			if have < seen || time.Now().After(deadline) {
				t.Fatalf("want more than %d, have %d", seen, have)
			}
			seen = have
		}
	}
	grow(offered + 500) // of which nothing was counted by the second: it is told while the first drains
	s.signal(first, syscall.SIGKILL)
	awaitExit(t, first)
	if have, _ := s.counted(); have < seen {
		t.Errorf("want %d at least, have %d", seen, have)
	}
	s.get("/count")
	s.hangup(3)
	awaitExit(t, second)
	grow(seen + 1)
}
