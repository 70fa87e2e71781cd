//go:build unix

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/chain"
)

// habit is what one side of a conversation does until the traffic is to end. Then each side ends its direction, and reads to the end.
type habit int

const (
	talks    habit = iota // sends at full speed
	isSilent              // sends nothing
	endsSoon              // sends a little, and ends its direction
	dawdles               // is silent, and hardly reads
)

// conversations are the habits of client and upstream, in turn.
var conversations = []struct{ client, upstream habit }{
	{talks, talks}, {talks, talks}, {talks, talks}, {talks, talks},
	{endsSoon, talks}, {talks, endsSoon},
	{isSilent, talks}, {talks, isSilent}, {isSilent, isSilent},
	{dawdles, talks}, {talks, dawdles},
}

// direction is what one side sent and the other received.
type direction struct {
	sent, received hash.Hash
	out, in        atomic.Int64
	flows          bool // until the traffic ends
}

func newDirection(from, to habit) *direction {
	return &direction{sent: sha256.New(), received: sha256.New(), flows: from == talks && to != dawdles}
}

func (d *direction) whole() error {
	if sent, received := d.sent.Sum(nil), d.received.Sum(nil); !bytes.Equal(sent, received) {
		return fmt.Errorf("sent %d bytes with SHA-256 %x, received %d with %x", d.out.Load(), sent, d.in.Load(), received)
	}
	return nil
}

// conversation is one connection through the proxy.
type conversation struct {
	number   int
	up, down *direction
	client   net.Conn
	accepted atomic.Bool
}

// traffic is many conversations, with both of their sides.
type traffic struct {
	t    testing.TB
	ln   net.Listener
	list []*conversation
	all  sync.WaitGroup // accepted: nobody talks before
	stop chan struct{}
	work sync.WaitGroup

	mu   sync.Mutex
	errs []error
}

// random is what is sent: pieces of it, from anywhere. To make new data would cost more than to pass it on.
var random = sync.OnceValue(func() []byte {
	data := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	return data
})

// newTraffic prepares the upstream's side.
func newTraffic(t testing.TB) *traffic {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &traffic{t: t, ln: ln, stop: make(chan struct{})}
}

// begin starts n conversations through address, and returns when all of them are.
func (tr *traffic) begin(address string, n int) {
	tr.t.Helper()
	for number := range n {
		habits := conversations[number%len(conversations)]
		tr.list = append(tr.list, &conversation{number: number, up: newDirection(habits.client, habits.upstream),
			down: newDirection(habits.upstream, habits.client)})
	}
	tr.all.Add(n)
	tr.work.Go(tr.accept)
	tr.t.Cleanup(func() { // if the test has failed before
		tr.ln.Close()
		for _, c := range tr.list {
			if c.client != nil {
				c.client.Close()
			}
		}
		tr.end()
	})
	for _, c := range tr.list {
		conn, err := net.DialTimeout("tcp", address, chain.Within)
		if err != nil {
			tr.t.Fatal(err)
		}
		c.client = conn
		first := binary.BigEndian.AppendUint32(nil, uint32(c.number))
		if _, err := conn.Write(first); err != nil {
			tr.t.Fatal(err)
		}
		tr.converse(conn, c.number, conversations[c.number%len(conversations)].client, c.up, c.down)
	}
	tr.progress()
}

// accept is the upstream. Each connection says whose it is.
func (tr *traffic) accept() {
	for range tr.list {
		conn, err := tr.ln.Accept()
		if err != nil {
			tr.fail(err)
			return
		}
		first := make([]byte, 4)
		if _, err := io.ReadFull(conn, first); err != nil {
			tr.fail(fmt.Errorf("a conversation that does not begin: %w", err))
			return
		}
		c := tr.list[binary.BigEndian.Uint32(first)]
		if c.accepted.Swap(true) {
			tr.fail(fmt.Errorf("conversation %d came again", c.number))
			return
		}
		tr.converse(conn, c.number, conversations[c.number%len(conversations)].upstream, c.down, c.up)
		tr.all.Done()
	}
}

const buffered = 128 << 10

// converse is one side.
func (tr *traffic) converse(conn net.Conn, number int, h habit, out, in *direction) {
	// Else the kernel takes megabytes of each before it is the next one's turn.
	tcp := conn.(*net.TCPConn)
	if err := errors.Join(tcp.SetReadBuffer(buffered), tcp.SetWriteBuffer(buffered)); err != nil {
		tr.fail(err)
	}
	var both sync.WaitGroup
	both.Add(2)
	tr.work.Go(func() {
		defer both.Done()
		if err := tr.send(tcp, h, out); err != nil {
			tr.fail(fmt.Errorf("conversation %d: send: %w", number, err))
		}
	})
	tr.work.Go(func() {
		defer both.Done()
		if err := tr.receive(conn, h, in); err != nil {
			tr.fail(fmt.Errorf("conversation %d: receive: %w", number, err))
			conn.Close()
		}
	})
	tr.work.Go(func() {
		both.Wait()
		conn.Close()
	})
}

func (tr *traffic) send(conn *net.TCPConn, h habit, d *direction) error {
	tr.all.Wait()
	data := random()
	said := 0
	for {
		if h == isSilent || h == dawdles {
			<-tr.stop
		}
		select {
		case <-tr.stop:
			return conn.CloseWrite()
		default:
		}
		if h == endsSoon && said == 3 {
			return conn.CloseWrite()
		}
		said++
		size := 1 + rand.IntN(32<<10)
		at := rand.IntN(len(data) - size)
		n, err := conn.Write(data[at : at+size])
		d.sent.Write(data[at : at+n])
		d.out.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

func (tr *traffic) receive(conn net.Conn, h habit, d *direction) error {
	buffer := make([]byte, 32<<10)
	seldom := time.NewTicker(50 * time.Millisecond)
	defer seldom.Stop()
	for {
		piece := buffer
		if h == dawdles {
			piece = buffer[:1<<10]
			select {
			case <-tr.stop:
				piece = buffer
			case <-seldom.C:
			}
		}
		n, err := conn.Read(piece)
		d.received.Write(piece[:n])
		d.in.Add(int64(n))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (tr *traffic) fail(err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.errs = append(tr.errs, err)
}

func (tr *traffic) failed() error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return errors.Join(tr.errs[:min(len(tr.errs), 10)]...)
}

// progress waits until more has come in everywhere where something is sent.
func (tr *traffic) progress() {
	tr.t.Helper()
	type place struct {
		*direction
		had int64
	}
	had := make(map[*conversation][]place)
	for _, c := range tr.list {
		for _, d := range []*direction{c.up, c.down} {
			if d.flows {
				had[c] = append(had[c], place{d, d.in.Load()})
			}
		}
	}
	deadline := time.Now().Add(chain.Within)
	for c, places := range had {
		for _, d := range places {
			for ; d.in.Load() == d.had; time.Sleep(time.Millisecond) {
				if err := tr.failed(); err != nil {
					tr.t.Fatal(err)
				}
				if time.Now().After(deadline) {
					tr.t.Fatalf("conversation %d: nothing comes after %d bytes", c.number, d.had)
				}
			}
		}
	}
}

// end ends all conversations, which are all to be whole.
func (tr *traffic) end() {
	tr.t.Helper()
	select {
	case <-tr.stop:
		return
	default:
		close(tr.stop)
	}
	done := make(chan struct{})
	go func() {
		tr.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(chain.Within):
		tr.t.Errorf("no end within %v", chain.Within)
		return
	}
	if err := tr.failed(); err != nil {
		tr.t.Error(err)
		return
	}
	var total int64
	for _, c := range tr.list {
		for name, d := range map[string]*direction{"up": c.up, "down": c.down} {
			if err := d.whole(); err != nil {
				tr.t.Errorf("conversation %d, %s: %v", c.number, name, err)
			}
			total += d.in.Load()
		}
	}
	tr.t.Logf("%d connections, %d MiB", len(tr.list), total>>20)
}
