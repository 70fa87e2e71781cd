//go:build linux

package listener

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// wrapped is a connection that is not a *Conn, and whose descriptor is nobody's business.
type wrapped struct{ net.Conn }

func (w wrapped) CloseWrite() error {
	return w.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

func (w wrapped) SetLinger(seconds int) error {
	return w.Conn.(*Conn).SetLinger(seconds)
}

// relayed is a Relay with the clients at both sides of it.
type relayed struct {
	*Relay
	strays  *Strays
	plain   bool // by Read and Write, as it is where there is no splice
	ends    [2]net.Conn
	clients [2]net.Conn
}

// newRelayed makes a Relay whose ends are as wrap makes them of a *Conn.
func newRelayed(t testing.TB, network string, wrap func(*Conn) net.Conn) *relayed {
	t.Helper()
	r := &relayed{strays: new(Strays)}
	for i := range r.ends {
		server, client := connected(t, network)
		r.clients[i] = client
		r.ends[i] = wrap(must(r.strays.Add(server))(t))
		t.Cleanup(func() { r.ends[i].Close() })
	}
	r.Relay = NewRelay(r.ends[0], r.ends[1])
	return r
}

func (r *relayed) set(plain bool) {
	r.plain = plain
	for i := range r.ways {
		if plain {
			r.ways[i].splicer = splicer{}
		}
	}
}

// connected returns both ends of a connection.
func connected(t testing.TB, network string) (server, client net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network != "tcp" {
		address = tempPath(t, "r")
	}
	ln := must(net.Listen(network, address))(t)
	defer ln.Close()
	client = must(net.Dial(network, ln.Addr().String()))(t)
	t.Cleanup(func() { client.Close() })
	server = must(ln.Accept())(t)
	for _, conn := range []net.Conn{server, client} {
		if b, ok := conn.(interface {
			SetReadBuffer(bytes int) error
			SetWriteBuffer(bytes int) error
		}); ok { // so that they are full soon
			_, _ = b.SetReadBuffer(256<<10), b.SetWriteBuffer(256<<10)
		}
	}
	return server, client
}

func asConn(c *Conn) net.Conn    { return c }
func asWrapped(c *Conn) net.Conn { return wrapped{c} }

// goRun runs it.
func (r *relayed) goRun(ctx context.Context) <-chan error {
	result := make(chan error, 1)
	go func() { result <- r.Run(ctx) }()
	return result
}

// move takes the connections out and makes a Relay of them again, as another process would.
func (r *relayed) move(t testing.TB) {
	t.Helper()
	state := r.State()
	list := must(DetachConns(r.ends[0].(*Conn), r.ends[1].(*Conn)))(t)
	for i, d := range list {
		if len(d.Residual) > RelayChunk {
			t.Fatalf("%d bytes travel, want %d at most", len(d.Residual), RelayChunk)
		}
		r.ends[i] = must(r.strays.AdoptConn(d))(t)
	}
	timeout := r.IdleTimeout
	r.Relay = must(RestoreRelay(r.ends[0], r.ends[1], state))(t)
	r.IdleTimeout = timeout
	r.set(r.plain)
}

// withoutPipes has relays find no pipe until the returned function is called.
func withoutPipes() func() {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	for _, p := range pipes.free {
		_, _ = syscall.Close(p.r), syscall.Close(p.w)
	}
	pipes.open -= len(pipes.free)
	pipes.free = nil
	limit := pipes.limit
	pipes.limit = -1
	return func() {
		pipes.mu.Lock()
		defer pipes.mu.Unlock()
		pipes.limit = limit
	}
}

// relays are the ways in which a Relay copies.
var relays = []struct {
	name, network string
	wrap          func(*Conn) net.Conn
	noPipes       bool
	plain         bool
	moves         bool
}{
	{"tcp by splice", "tcp", asConn, false, false, true},
	{"unix by splice", "unix", asConn, false, false, true},
	{"tcp without a pipe", "tcp", asConn, true, false, true},
	{"tcp by Read and Write", "tcp", asConn, false, true, true},
	{"wrapped", "tcp", asWrapped, false, false, false},
}

func eachRelay(t *testing.T, f func(t *testing.T, r *relayed, moves bool)) {
	for _, test := range relays {
		t.Run(test.name, func(t *testing.T) {
			if test.noPipes {
				defer withoutPipes()()
			}
			r := newRelayed(t, test.network, test.wrap)
			r.set(test.plain)
			f(t, r, test.moves)
		})
	}
}

func TestRelayCopiesUntilBothHaveEnded(t *testing.T) {
	eachRelay(t, func(t *testing.T, r *relayed, _ bool) {
		result := r.goRun(testContext(t))
		say(t, r.clients[0], "question")
		want(t, r.clients[1], "question")
		closeWrite(t, r.clients[0])
		wantEOF(t, r.clients[1]) // passed on
		say(t, r.clients[1], "answer")
		want(t, r.clients[0], "answer")
		closeWrite(t, r.clients[1])
		wantEOF(t, r.clients[0])
		if err := receive(t, result); err != nil {
			t.Error(err)
		}
		if there, back := r.Passed(); there != 8 || back != 6 {
			t.Errorf("want 8 and 6 bytes, have %d and %d", there, back)
		}
	})
}

func closeWrite(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func wantEOF(t *testing.T, from net.Conn) {
	t.Helper()
	_ = from.SetReadDeadline(time.Now().Add(within))
	if n, err := from.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("want EOF, have %d bytes, %v", n, err)
	}
}

// sendRandom sends random data in pieces of all sizes.
func sendRandom(conn net.Conn, random *rand.Rand, total int) (sum [32]byte, err error) {
	hash := sha256.New()
	data := make([]byte, 256<<10)
	for total > 0 {
		piece := data[:1+random.IntN(min(len(data), total))]
		for i := 0; i < len(piece); i += 8 {
			for j, word := i, random.Uint64(); j < min(i+8, len(piece)); j++ {
				piece[j] = byte(word)
				word >>= 8
			}
		}
		hash.Write(piece)
		if _, err := conn.Write(piece); err != nil {
			return sum, err
		}
		total -= len(piece)
	}
	return [32]byte(hash.Sum(nil)), conn.(interface{ CloseWrite() error }).CloseWrite()
}

// receiveSlowly makes pauses, so that it is also the reader that is waited for.
func receiveSlowly(conn net.Conn, random *rand.Rand) (sum [32]byte, n int64, err error) {
	hash := sha256.New()
	data := make([]byte, 64<<10)
	for {
		m, err := conn.Read(data[:1+random.IntN(len(data))])
		hash.Write(data[:m])
		n += int64(m)
		if err == io.EOF {
			return [32]byte(hash.Sum(nil)), n, nil
		}
		if err != nil {
			return sum, n, err
		}
		if random.IntN(50) == 0 {
			time.Sleep(time.Millisecond) // the buffers on the way fill up
		}
	}
}

// Random data goes both ways at full speed. The relay is stopped again and again, in the middle of everything, and moved.
func TestInvariant5RelayStopsAnywhereWithoutLosingAByte(t *testing.T) {
	const total = 32 << 20
	eachRelay(t, func(t *testing.T, r *relayed, moves bool) {
		var clients sync.WaitGroup
		for i, client := range r.clients {
			peer := r.clients[1-i]
			sums := make(chan [32]byte, 1)
			clients.Go(func() {
				sum, err := sendRandom(client, rand.New(rand.NewPCG(1, uint64(i))), total)
				if err != nil {
					t.Error(err)
				}
				sums <- sum
			})
			clients.Go(func() {
				sum, n, err := receiveSlowly(peer, rand.New(rand.NewPCG(2, uint64(i))))
				if err != nil || n != total || sum != <-sums {
					t.Errorf("received %d of %d bytes, %v", n, total, err)
				}
			})
		}
		residual, stops := 0, 0
		for random := rand.New(rand.NewPCG(3, 3)); ; stops++ {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(int(2*time.Millisecond))))
			err := r.Run(ctx)
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, ErrInterrupted) {
				t.Fatal(err)
			}
			for _, end := range r.ends {
				if c, ok := end.(*Conn); ok {
					residual += c.Unreads()
				}
			}
			if moves {
				r.move(t)
			}
		}
		clients.Wait()
		if there, back := r.Passed(); there != total || back != total {
			t.Errorf("want %d bytes each way, have %d and %d", total, there, back)
		}
		t.Logf("%d stops, %d bytes traveled", stops, residual)
		if stops < 5 || moves && residual == 0 {
			t.Errorf("%d stops with %d bytes under way: nothing was tried", stops, residual)
		}
	})
}

// fill makes a client send until nothing takes it any more. It returns what was sent.
func fill(t *testing.T, client net.Conn) []byte {
	t.Helper()
	sent := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{1}).Read(sent)
	n := 0
	for {
		// The kernel may take 200 ms to notice that there is room again (its persist timer).
		_ = client.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		m, err := client.Write(sent[n:])
		n += m
		if isTimeout(err) && m == 0 {
			break
		}
		if err != nil && !isTimeout(err) || n == len(sent) {
			t.Fatalf("%d bytes written, %v: want full buffers", n, err)
		}
	}
	_ = client.SetWriteDeadline(time.Time{})
	return sent[:n]
}

// A reader that does not read, and buffers that are full all the way, do not keep a relay from being stopped.
func TestInvariant5RelayMovesWhileItsWriteIsBlocked(t *testing.T) {
	eachRelay(t, func(t *testing.T, r *relayed, moves bool) {
		ctx, cancel := context.WithCancel(testContext(t))
		result := r.goRun(ctx)
		sent := fill(t, r.clients[0])
		closeWrite(t, r.clients[0])
		for i := range 3 {
			cancel()
			if err := receive(t, result); !errors.Is(err, ErrInterrupted) {
				t.Fatal(err)
			}
			if moves {
				if i == 0 && r.ends[0].(*Conn).Unreads() == 0 {
					t.Error("nothing was under way")
				}
				r.move(t)
			}
			ctx, cancel = context.WithCancel(testContext(t))
			defer cancel()
			result = r.goRun(ctx)
		}
		_ = r.clients[1].SetReadDeadline(time.Now().Add(within))
		have, err := io.ReadAll(r.clients[1])
		if err != nil || !bytes.Equal(have, sent) {
			t.Errorf("sent %d bytes, received %d, %v", len(sent), len(have), err)
		}
		closeWrite(t, r.clients[1])
		if err := receive(t, result); err != nil {
			t.Error(err)
		}
	})
}

// The end of one direction is not forgotten and not repeated.
func TestRelayMovesHalfClosed(t *testing.T) {
	r := newRelayed(t, "tcp", asConn)
	ctx, cancel := context.WithCancel(testContext(t))
	result := r.goRun(ctx)
	say(t, r.clients[0], "all")
	closeWrite(t, r.clients[0])
	want(t, r.clients[1], "all")
	wantEOF(t, r.clients[1])
	cancel()
	if err := receive(t, result); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	r.move(t)
	result = r.goRun(testContext(t))
	say(t, r.clients[1], "answer")
	want(t, r.clients[0], "answer")
	closeWrite(t, r.clients[1])
	wantEOF(t, r.clients[0])
	if err := receive(t, result); err != nil {
		t.Error(err)
	}
	if there, back := r.Passed(); there != 3 || back != 6 {
		t.Errorf("want 3 and 6 bytes, have %d and %d", there, back)
	}
	r.move(t)
	if err := r.Run(testContext(t)); err != nil {
		t.Errorf("of a relay that has ended: %v", err)
	}
}

// A reset is passed on: a stream that was cut does not look like a whole one.
func TestRelayPassesAResetOn(t *testing.T) {
	for _, test := range relays {
		if test.network != "tcp" {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			if test.noPipes {
				defer withoutPipes()()
			}
			for _, busy := range []bool{false, true} {
				r := newRelayed(t, test.network, test.wrap)
				r.set(test.plain)
				result := r.goRun(testContext(t))
				say(t, r.clients[1], "a part")
				want(t, r.clients[0], "a part")
				writing := make(chan error, 1)
				if busy { // whether reading or writing learns of it first
					go func() {
						_, err := io.Copy(r.clients[0], zeros{})
						writing <- err
					}()
				} else {
					writing <- nil
				}
				_ = r.clients[1].(*net.TCPConn).SetLinger(0)
				_ = r.clients[1].Close()
				if err := receive(t, result); !errors.Is(err, syscall.ECONNRESET) {
					t.Fatalf("want ECONNRESET, have %v", err)
				}
				_ = r.clients[0].SetReadDeadline(time.Now().Add(within))
				n, err := r.clients[0].Read(make([]byte, 1))
				// The kernel tells of it once, whoever asks first.
				if err := errors.Join(err, receive(t, writing)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("busy %v: want ECONNRESET, have %d bytes, %v", busy, n, err)
				}
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Who answers and hangs up before it has read everything is heard to the end.
func TestRelayPassesOnTheLastWordsOfAPeerThatReadsNoMore(t *testing.T) {
	eachRelay(t, func(t *testing.T, r *relayed, _ bool) {
		result := r.goRun(testContext(t))
		answer := strings.Repeat("too large ", 1000)
		go func() { _, _ = io.Copy(r.clients[0], zeros{}) }()
		want(t, r.clients[1], "\x00")
		say(t, r.clients[1], answer)
		closeWrite(t, r.clients[1])
		_ = r.clients[0].SetReadDeadline(time.Now().Add(within))
		// Hang up when the answer has arrived: what was sent before a reset may be lost on its way, with or without a relay.
		want(t, r.clients[0], answer)
		_ = r.clients[1].Close()
		if err := receive(t, result); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("want a broken pipe, have %v", err)
		}
		if r.clients[0].LocalAddr().Network() == "tcp" { // to a Unix socket, hanging up is a reset in any case
			wantEOF(t, r.clients[0])
		}
	})
}

func TestRelayIdles(t *testing.T) {
	const timeout = 200 * time.Millisecond
	for _, test := range []struct {
		name string
		do   func(t *testing.T, r *relayed)
	}{
		{"silent", func(*testing.T, *relayed) {}},
		{"half-closed", func(t *testing.T, r *relayed) { closeWrite(t, r.clients[0]) }},
		{"reader that does not read", func(t *testing.T, r *relayed) {
			go func() { _, _ = io.Copy(r.clients[0], zeros{}) }()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRelayed(t, "tcp", asConn)
			r.IdleTimeout = timeout
			began := time.Now()
			result := r.goRun(testContext(t))
			test.do(t, r)
			if err := receive(t, result); !errors.Is(err, ErrIdle) {
				t.Errorf("want ErrIdle, have %v", err)
			}
			if took := time.Since(began); took < timeout {
				t.Errorf("after %v, want %v", took, timeout)
			}
		})
	}
}

// For how long nothing has passed travels.
func TestRelayIdlesAcrossAMove(t *testing.T) {
	const timeout = time.Hour
	r := newRelayed(t, "tcp", asConn)
	r.IdleTimeout = timeout
	ctx, cancel := context.WithCancel(testContext(t))
	result := r.goRun(ctx)
	say(t, r.clients[0], "x")
	want(t, r.clients[1], "x")
	cancel()
	if err := receive(t, result); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	r.Relay.idle = timeout - time.Millisecond // as if it had been silent
	r.move(t)
	if err := r.Run(testContext(t)); !errors.Is(err, ErrIdle) {
		t.Errorf("want ErrIdle, have %v", err)
	}
	// What passes counts from then on.
	r.Relay.idle = timeout - within
	result = r.goRun(testContext(t))
	say(t, r.clients[0], "y")
	want(t, r.clients[1], "y")
	r.ends[0].(*Conn).Interrupt()
	if err := receive(t, result); !errors.Is(err, ErrInterrupted) || r.idle > within {
		t.Errorf("want less than %v idle, have %v, %v", within, r.idle, err)
	}
}

// A direction in which nothing is under way has no pipe, and one that was stopped has none either.
func TestInvariant8RelayHoldsNoPipe(t *testing.T) {
	lent := func() int {
		pipes.mu.Lock()
		defer pipes.mu.Unlock()
		return pipes.open - len(pipes.free)
	}
	r := newRelayed(t, "tcp", asConn)
	before := lent()
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	result := r.goRun(ctx)
	for range 100 {
		say(t, r.clients[0], "x")
		want(t, r.clients[1], "x")
	}
	for late := time.Now().Add(within); lent() != before; time.Sleep(time.Millisecond) { // it has written, and is about to give it back
		if time.Now().After(late) {
			t.Fatalf("%d pipes are in use, want %d", lent(), before)
		}
	}
	fill(t, r.clients[0])
	if have := lent(); have != before+1 {
		t.Errorf("%d pipes are in use while one writes, want %d", have, before+1)
	}
	cancel()
	if err := receive(t, result); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	if have := lent(); have != before {
		t.Errorf("%d pipes are in use after it was stopped, want %d", have, before)
	}
}

// Nobody takes a connection from under a Relay.
func TestInvariant1RelayIsDetachedOnlyWhenItIsStopped(t *testing.T) {
	r := newRelayed(t, "tcp", asConn)
	r.set(true) // a Read that ends is not the end of it
	result := r.goRun(testContext(t))
	say(t, r.clients[0], "x")
	want(t, r.clients[1], "x")
	if _, err := DetachConns(r.ends[1].(*Conn)); !errors.Is(err, ErrReading) {
		t.Errorf("detach: want ErrReading, have %v", err)
	}
	if err := r.Run(testContext(t)); !errors.Is(err, ErrReading) {
		t.Errorf("run: want ErrReading, have %v", err)
	}
	r.ends[1].(*Conn).Interrupt()
	if err := receive(t, result); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	r.move(t)
}

// What its handler closes, at the end of a drain, is closed politely.
func TestRelayOfConnectionsThatAreClosed(t *testing.T) {
	r := newRelayed(t, "tcp", asConn)
	result := r.goRun(testContext(t))
	r.strays.CloseConns()
	if err := receive(t, result); !errors.Is(err, net.ErrClosed) {
		t.Errorf("want net.ErrClosed, have %v", err)
	}
	for _, client := range r.clients {
		wantEOF(t, client)
	}
}

// A connection that cannot end half, like one of net.Pipe, ends the relay.
func TestRelayOfConnectionsWithoutCloseWrite(t *testing.T) {
	server, client := net.Pipe()
	other, far := net.Pipe()
	r := NewRelay(server, other)
	result := make(chan error, 1)
	go func() { result <- r.Run(testContext(t)) }()
	say(t, client, "x")
	want(t, far, "x")
	_ = client.Close()
	if err := receive(t, result); err != nil {
		t.Errorf("want nil, have %v", err)
	}
	_, _ = server.Close(), other.Close()
}

func TestRelayWantsStreams(t *testing.T) {
	r := newRelayed(t, "unixpacket", asConn)
	if err := r.Run(testContext(t)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("want ErrUnsupported, have %v", err)
	}
}

func FuzzRestoreRelay(f *testing.F) {
	f.Add(NewRelay(wrapped{}, wrapped{}).State())
	f.Add([]byte{})
	f.Add([]byte("\xa1\x01\x82\x20\x00"))          // {1: [-1, 0]}
	f.Add([]byte("\xa1\x01\x9b" + "\xff\xff\xff")) // an array of very many
	f.Fuzz(func(t *testing.T, state []byte) {
		r, err := RestoreRelay(wrapped{}, wrapped{}, state)
		if err != nil {
			if !errors.Is(err, ErrRelayState) {
				t.Errorf("want ErrRelayState, have %v", err)
			}
			return
		}
		if there, back := r.Passed(); there < 0 || back < 0 || r.idle < 0 {
			t.Error(fmt.Sprint("restored ", there, " and ", back, " bytes, idle for ", r.idle))
		}
		if _, err := RestoreRelay(wrapped{}, wrapped{}, r.State()); err != nil {
			t.Error(err)
		}
	})
}
