//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/restart"
)

// streamer sends random data over one connection and compares what comes back.
type streamer struct {
	conn     *net.TCPConn
	back     io.Reader
	sent     hash.Hash
	received hash.Hash
	out, in  atomic.Int64
	stop     chan struct{}
	err      error // of the first of both directions to fail
	done     chan struct{}
}

func startStreamer(t *testing.T, conn *net.TCPConn, back io.Reader, said ...byte) *streamer {
	t.Helper()
	s := &streamer{conn: conn, back: back, sent: sha256.New(), received: sha256.New(),
		stop: make(chan struct{}), done: make(chan struct{})}
	s.sent.Write(said)
	t.Cleanup(func() { conn.Close() })
	sending := make(chan error, 1)
	go func() { sending <- s.send() }()
	go func() {
		defer close(s.done)
		err := s.receive()
		if err != nil {
			_ = conn.Close() // send is not to wait for a reader
		}
		s.err = errors.Join(err, <-sending)
	}()
	return s
}

func dialRaw(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// streamers starts n clients of the raw listener.
func (s *service) streamers(n int) []*streamer {
	s.t.Helper()
	address := s.await("raw listener", func(l line) bool { return l.Message == "raw" }).Address
	list := make([]*streamer, n)
	for i := range list {
		conn := dialRaw(s.t, address)
		list[i] = startStreamer(s.t, conn, conn)
	}
	return list
}

const sendInterval = 20 * time.Millisecond * slowdown

// send sends random data in pieces of all sizes until stop is closed, and ends its direction.
func (s *streamer) send() error {
	random := rand.NewChaCha8([32]byte{byte(rand.Int())})
	buffer := make([]byte, 32<<10)
	// At full speed the test alone would fill the machine, and hardly get to an upgrade.
	next := time.NewTicker(sendInterval)
	defer next.Stop()
	for {
		select {
		case <-s.stop:
			return s.conn.CloseWrite()
		case <-next.C:
		}
		piece := buffer[:1+random.Uint64()%uint64(len(buffer))]
		random.Read(piece)
		n, err := s.conn.Write(piece)
		s.sent.Write(piece[:n])
		s.out.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

func (s *streamer) receive() error {
	buffer := make([]byte, 32<<10)
	for {
		n, err := s.back.Read(buffer)
		s.received.Write(buffer[:n])
		s.in.Add(int64(n))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// end stops sending and returns what became of the connection.
func (s *streamer) end() error {
	close(s.stop)
	select {
	case <-s.done:
	case <-time.After(patience):
		_ = s.conn.Close()
		return fmt.Errorf("no end after %v: sent %d bytes, received %d", patience, s.out.Load(), s.in.Load())
	}
	if s.err != nil {
		return s.err
	}
	if sent, received := s.sent.Sum(nil), s.received.Sum(nil); !bytes.Equal(sent, received) {
		return fmt.Errorf("sent %d bytes with SHA-256 %x, received %d with %x", s.out.Load(), sent, s.in.Load(), received)
	}
	return nil
}

// progress waits until each streamer has got more back than it had.
func progress(t *testing.T, list []*streamer) {
	t.Helper()
	had := make([]int64, len(list))
	for i, s := range list {
		had[i] = s.in.Load()
	}
	deadline := time.Now().Add(patience)
	for i, s := range list {
		for ; s.in.Load() == had[i]; time.Sleep(time.Millisecond) {
			select {
			case <-s.done:
				t.Fatalf("stream %d has ended: %v", i, s.err)
			default:
			}
			if time.Now().After(deadline) {
				t.Fatalf("stream %d: nothing comes back after %d bytes", i, had[i])
			}
		}
	}
}

// endAll ends all streams, which are all to be whole.
func endAll(t *testing.T, list []*streamer) {
	t.Helper()
	var ending sync.WaitGroup
	var total atomic.Int64
	for i, s := range list {
		ending.Go(func() {
			if err := s.end(); err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
			total.Add(s.in.Load())
		})
	}
	ending.Wait()
	t.Logf("%d streams, %d MiB each way", len(list), total.Load()>>20)
}

func shortened(upgrades int) int {
	if testing.Short() || slowdown > 1 {
		return 5
	}
	return upgrades
}

// 200 connections echo at speed through 20 upgrades, and each of them gets back what it has sent: no byte is lost, repeated or
// reordered, and none reconnects.
func TestInvariant5RawConnectionsEchoThroughUpgrades(t *testing.T) {
	s := startService(t, config{Probation: -1, Drain: patience, Raw: &rawConfig{}})
	list := s.streamers(200)
	for number := 2; number <= shortened(20)+1; number++ {
		progress(t, list)
		before := s.pid()
		s.hangup(number)
		awaitExit(t, before)
		s.awaitMoved(before, len(list))
	}
	progress(t, list)
	endAll(t, list)
}

// The same for connections that net/http has accepted. What the client sends at once, with the request, is not lost either.
func TestInvariant5HijackedConnectionsEchoThroughUpgrades(t *testing.T) {
	s := startService(t, config{Probation: -1, Drain: patience, Raw: &rawConfig{}})
	list := make([]*streamer, 50)
	for i := range list {
		conn := dialRaw(t, s.address)
		if _, err := io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nand"); err != nil {
			t.Fatal(err)
		}
		reader := bufio.NewReader(conn)
		response, err := http.ReadResponse(reader, nil)
		if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("want 101, have %v, %v", response, err)
		}
		list[i] = startStreamer(t, conn, reader, []byte("and")...)
	}
	for number := 2; number <= 5; number++ {
		progress(t, list)
		before := s.pid()
		s.hangup(number)
		awaitExit(t, before)
		s.awaitMoved(before, len(list))
	}
	progress(t, list)
	endAll(t, list)
}

// awaitMoved waits until a generation says how many connections it has moved.
func (s *service) awaitMoved(pid, want int) {
	s.t.Helper()
	have := s.await("move", func(l line) bool { return l.PID == pid && l.Message == "connections moved" })
	if !strings.Contains(have.raw, fmt.Sprintf(`"moved":%d`, want)) {
		s.t.Errorf("want %d moved, have %s", want, have.raw)
	}
}

// Both connections of a pair move in one step, while data goes through it both ways.
func TestInvariant5PairsOfConnectionsMoveTogether(t *testing.T) {
	s := startService(t, config{Probation: -1, Drain: patience, Raw: &rawConfig{Pairs: true}})
	address := s.await("raw listener", func(l line) bool { return l.Message == "raw" }).Address
	var list []*streamer
	for range 20 {
		left, right := dialRaw(t, address), dialRaw(t, address)
		// What one sends the other one receives; the pair of streamers compares crosswise.
		a, b := startStreamer(t, left, right), startStreamer(t, right, left)
		list = append(list, a, b)
		progress(t, []*streamer{a, b}) // until they are a pair, so that the next cannot be mixed with them
	}
	for number := 2; number <= 4; number++ {
		before := s.pid()
		s.hangup(number)
		awaitExit(t, before)
		s.awaitMoved(before, len(list))
		progress(t, list)
	}
	endAll(t, list)
}

// States as large as they may be travel as well, a few at a time.
func TestRawConnectionsMoveWithLargeStates(t *testing.T) {
	// The echo has 8 bytes and up to one that was given back.
	s := startService(t, config{Probation: -1, Drain: patience, Raw: &rawConfig{State: restart.MaxConnState - 9}})
	list := s.streamers(20)
	for number := 2; number <= 4; number++ {
		progress(t, list)
		before := s.pid()
		s.hangup(number)
		awaitExit(t, before)
		s.awaitMoved(before, len(list))
	}
	progress(t, list)
	endAll(t, list)
}

// What cannot be handed over goes on with its owner, and no byte is lost.
func TestInvariant3RawConnectionsThatAreNotTakenGoOn(t *testing.T) {
	for _, test := range []struct {
		name, impostor, fault string
		raw                   rawConfig
		says                  string // for each connection
	}{
		{"refused", "refuses-raw-connections", "", rawConfig{}, `"came back"`},
		{"never answered", "ignores-raw-connections", "", rawConfig{}, `"came back"`},
		{"successor hangs with descriptors that it never read", "hangs-on-raw-connections", "", rawConfig{}, `"came back"`},
		{"successor does not know the kind", "", noAdopter, rawConfig{}, ``},
		{"state too large", "", "", rawConfig{State: restart.MaxConnState}, fmt.Sprint("at most ", restart.MaxConnState)},
		{"handler keeps it", "", "", rawConfig{Stay: true}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startService(t, config{Probation: -1, Drain: patience, Raw: &test.raw})
			first := s.pid()
			list := s.streamers(30)
			progress(t, list)
			if test.impostor != "" {
				s.installImpostor(test.impostor)
			}
			s.setFault(test.fault)
			mark := s.mark()
			s.signal(first, syscall.SIGHUP)
			s.await("handover", func(l line) bool { return l.Message == "handed over" })
			if test.says != "" {
				for range list {
					mark = s.markAfter(mark, test.says)
				}
			}
			progress(t, list)
			endAll(t, list)
			awaitExit(t, first)
			s.await("end of its log", func(l line) bool { return l.PID == first && l.Message == "done" })
			echoed := 0
			for _, l := range s.linesAfter(0) {
				if l.Message == "echoed" && l.PID == first {
					echoed++
				}
			}
			if echoed != len(list) {
				t.Errorf("want %d connections ended by their owner, have %d", len(list), echoed)
			}
		})
	}
}

// markAfter waits for a line with a text and returns the place after it.
func (s *service) markAfter(mark int, text string) int {
	s.t.Helper()
	s.awaitAfter(mark, text, func(l line) bool { return strings.Contains(l.raw, text) })
	for i, l := range s.linesAfter(mark) {
		if strings.Contains(l.raw, text) {
			return mark + i + 1
		}
	}
	return mark
}

// When the predecessor dies while it hands its connections on, each of them goes on whole in the successor, or is gone.
func TestInvariant1DeathOfThePredecessorWhileRawConnectionsMove(t *testing.T) {
	s := startService(t, config{Probation: -1, Drain: patience, Address: freeAddress(t), Raw: &rawConfig{State: 64 << 10}})
	first := s.pid()
	list := s.streamers(200 / slowdown)
	progress(t, list)
	s.signal(first, syscall.SIGHUP)
	s.await("handover", func(l line) bool { return l.Message == "handed over" })
	s.signal(first, syscall.SIGKILL) // in the middle of it
	awaitExit(t, first)
	s.await("second generation", func(l line) bool { return l.Message == "serving" && l.Generation == 2 })
	var mu sync.Mutex
	var ending sync.WaitGroup
	alive := 0
	for i, c := range list {
		ending.Go(func() {
			err := c.end()
			switch {
			case err == nil:
				mu.Lock()
				defer mu.Unlock()
				alive++
			case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN):
			default:
				// A connection may also end with EOF, cut short; but not go on with a hole in it.
				if c.err != nil || c.in.Load() >= c.out.Load() {
					t.Errorf("stream %d: %v", i, err)
				}
			}
		})
	}
	ending.Wait()
	t.Logf("%d of %d live on", alive, len(list))
	if generation, _ := s.serving(); generation != 2 {
		t.Errorf("want generation 2, have %d", generation)
	}
}
