//go:build unix

package listener

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Two Sets share a socket. Whoever is paused takes nothing, and what comes meanwhile goes to the other.
func TestPause(t *testing.T) {
	for _, p := range streamPlaces(t) {
		t.Run(p.String(), func(t *testing.T) {
			ctx := testContext(t)
			a, _ := newSet(t)
			la := must(a.Listen(ctx, "web", p.network, p.address))(t)
			b, _ := handOver(t, a)
			b.Pause()
			lb := must(b.Listen(ctx, "web", p.network, p.address))(t) // opened paused
			inA, inB := goAccept(la), goAccept(lb)

			sides := []struct {
				from   *Set
				to     *Set
				paused <-chan accepted
				waits  *<-chan accepted
				l      *Listener
			}{
				{b, a, inB, &inA, la},
				{a, b, inA, &inB, lb},
				{b, a, inB, &inA, la},
			}
			for i, side := range sides {
				side.from.Pause()
				side.from.Pause() // twice is once
				side.to.Resume()
				side.to.Resume()
				client := dial(t, la.Addr())
				have := receive(t, *side.waits)
				if have.err != nil {
					t.Fatal(have.err)
				}
				exchange(t, client, have.conn)
				have.conn.Close()
				*side.waits = goAccept(side.l)
				// The accept of the other side still waits: it has neither a connection nor an error.
				other := inA
				if side.l == la {
					other = inB
				}
				select {
				case got := <-other:
					t.Fatalf("step %d: the paused listener returned %v, %v", i, got.conn, got.err)
				default:
				}
				if !nonblock(t, la) || !nonblock(t, lb) {
					t.Fatalf("step %d: the socket became blocking", i)
				}
			}
		})
	}
}

// What queues up while all are paused is accepted after Resume, though no new event comes (epoll tells once).
func TestPauseQueues(t *testing.T) {
	s, _ := newSet(t)
	l := must(s.Listen(testContext(t), "web", "tcp", "127.0.0.1:0"))(t)
	first := goAccept(l)
	l.Pause()
	const n = 20
	for range n {
		dial(t, l.Addr())
	}
	if have := l.Conns(); have != 0 {
		t.Errorf("have %d connections in a paused listener", have)
	}
	l.Resume()
	receive(t, first)
	for range n - 1 {
		if a := receive(t, goAccept(l)); a.err != nil {
			t.Fatal(a.err)
		}
	}
	if have := l.CloseConns(); have != n {
		t.Errorf("closed %d, want %d", have, n)
	}
}

// A listener that its owner paused stays so when the Set is resumed, and the other way round.
func TestPauseTwoCauses(t *testing.T) {
	s, _ := newSet(t)
	l := must(s.Listen(testContext(t), "web", "tcp", "127.0.0.1:0"))(t)
	steps := []struct {
		name string
		do   func()
		want cause
	}{
		{"owner pauses", l.Pause, byOwner},
		{"set pauses", s.Pause, byOwner | bySet},
		{"set resumes", s.Resume, byOwner},
		{"set pauses", s.Pause, byOwner | bySet},
		{"owner resumes", l.Resume, bySet},
		{"set resumes", s.Resume, 0},
		{"owner resumes", l.Resume, 0},
	}
	for _, step := range steps {
		step.do()
		if have := l.gate.shut; have != step.want {
			t.Errorf("%s: have %b, want %b", step.name, have, step.want)
		}
	}
	exchangeOver(t, l)
}

// A paused Set opens paused.
func TestOpenPaused(t *testing.T) {
	ctx := testContext(t)
	a, _ := newSet(t)
	a.Pause()
	want := func(name string, g *gate, want cause) {
		t.Helper()
		if g.shut != want {
			t.Errorf("%s: have %b, want %b", name, g.shut, want)
		}
	}
	la := must(a.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
	pa := must(a.ListenPacket(ctx, "dns", "udp", "127.0.0.1:0"))(t)
	want("fresh listener", la.gate, bySet)
	want("fresh packet socket", pa.gate, bySet)
	b, _ := newSet(t)
	b.Pause()
	handOverTo(t, a, b)
	lb := must(b.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
	want("inherited listener", lb.gate, bySet)
	dial(t, lb.Addr())
	accepting := goAccept(lb)
	b.Resume()
	if a := receive(t, accepting); a.err != nil {
		t.Error(a.err)
	}
	lb.CloseConns()
}

func TestCloseWhilePaused(t *testing.T) {
	for _, end := range []struct {
		name string
		do   func(*Set, *Listener) error
	}{
		{"Close", func(_ *Set, l *Listener) error { return l.Close() }},
		{"Leave", func(s *Set, _ *Listener) error { return s.Leave() }},
		{"Set.Close", func(s *Set, _ *Listener) error { return s.Close() }},
	} {
		t.Run(end.name, func(t *testing.T) {
			s, _ := newSet(t)
			l := must(s.Listen(testContext(t), "web", "tcp", "127.0.0.1:0"))(t)
			s.Pause()
			waiting := goAccept(l)
			if err := end.do(s, l); err != nil {
				t.Fatal(err)
			}
			if a := receive(t, waiting); !errors.Is(a.err, net.ErrClosed) {
				t.Errorf("have %v, want %v", a.err, net.ErrClosed)
			}
			l.Pause()
			l.Resume()
			s.Resume()
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("have %v, want %v", err, net.ErrClosed)
			}
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("second Close: have %v, want %v", err, net.ErrClosed)
			}
		})
	}
}

// Clients connect all the time while two Sets take turns on a socket they share. None is refused, lost or reset, and nobody gets a
// connection while paused.
func TestPauseUnderLoad(t *testing.T) {
	for _, p := range []place{{"tcp", "127.0.0.1:0"}, {"unix", tempPath(t, "s")}} {
		t.Run(p.network, func(t *testing.T) {
			const clients, cycles = 8, 200
			ctx := testContext(t)
			a, _ := newSet(t)
			la := must(a.Listen(ctx, "web", p.network, p.address))(t)
			b, _ := handOver(t, a)
			lb := must(b.Listen(ctx, "web", p.network, p.address))(t)
			b.Pause()

			var servers, users sync.WaitGroup
			var count [2]atomic.Int64
			for i, l := range []*Listener{la, lb} {
				for range 2 {
					servers.Go(func() {
						for {
							c, err := l.Accept()
							if errors.Is(err, net.ErrClosed) {
								return
							}
							if err != nil {
								t.Error(err)
								return
							}
							count[i].Add(1)
							servers.Go(func() {
								if _, err := io.Copy(c, c); err != nil {
									t.Error(err)
								}
								c.Close()
							})
						}
					})
				}
			}
			stop := make(chan struct{})
			var served atomic.Int64
			for range clients {
				users.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if err := request1(la.Addr()); err != nil {
							t.Error(err)
							return
						}
						served.Add(1)
					}
				})
			}
			sets, listeners := [2]*Set{a, b}, [2]*Listener{la, lb}
			for i := range cycles {
				from, to := i%2, (i+1)%2
				sets[from].Pause()
				before := listeners[from].accepts()
				sets[to].Resume()
				// The other side serves; this one has taken nothing since Pause returned.
				for was := served.Load(); served.Load() < was+clients && !t.Failed(); {
					if err := request1(la.Addr()); err != nil {
						t.Error(err)
					}
				}
				if after := listeners[from].accepts(); after != before {
					t.Errorf("cycle %d: %d connections were accepted during a pause", i, after-before)
					break
				}
			}
			close(stop)
			users.Wait()
			for _, l := range listeners {
				if err := l.WaitConns(ctx); err != nil {
					t.Error(err)
				}
				if n := l.Conns(); n != 0 {
					t.Errorf("%d connections left", n)
				}
				l.Close()
			}
			servers.Wait()
			t.Logf("%d requests, accepted %d and %d", served.Load(), count[0].Load(), count[1].Load())
		})
	}
}

// accepts is a number that changes with every accepted connection: the roster's newest. (Conns also changes when one closes.)
func (l *Listener) accepts() uint64 {
	l.conns.mu.Lock()
	defer l.conns.mu.Unlock()
	return l.conns.entered
}

// request1 connects, has a byte echoed and closes.
func request1(addr net.Addr) error {
	c, err := dialErr(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	b := []byte{42}
	if _, err := c.Write(b); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		if err := w.CloseWrite(); err != nil {
			return err
		}
	}
	if _, err := c.Read(b); err != io.EOF {
		return errors.Join(errors.New("want EOF"), err)
	}
	return nil
}

// Everything at once, for the race detector: in each round a client connects while others pause, resume, count, close and duplicate.
func TestListenerRaces(t *testing.T) {
	ctx := testContext(t)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for range 10 {
		s, _ := newSet(t)
		l := must(s.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
		var servers sync.WaitGroup
		var served atomic.Int64
		for range 2 {
			servers.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Error(err)
						}
						return
					}
					served.Add(1)
					c.Close()
				}
			})
		}
		const rounds = 30
		for round := range rounds {
			var group sync.WaitGroup
			for _, f := range []func(){
				func() {
					c, err := net.Dial("tcp", l.Addr().String())
					if err == nil {
						c.Read(make([]byte, 1)) // until a server has closed it
						c.Close()
					} else if round < rounds-1 {
						t.Error(err)
					}
				},
				func() { l.Pause(); l.Resume() },
				func() { l.Pause(); l.Resume() },
				func() { s.Pause(); s.Resume() },
				func() { s.Pause(); s.Resume() },
				func() { l.Conns(); l.CloseConns() },
				func() { l.WaitConns(ended) },
				func() {
					socks, err := s.Sockets()
					if err != nil {
						t.Error(err)
					}
					for _, sock := range socks {
						sock.File.Close()
					}
				},
				func() {
					if round == rounds-1 {
						if err := l.Close(); err != nil {
							t.Error(err)
						}
					}
				},
			} {
				group.Go(f)
			}
			group.Wait()
		}
		servers.Wait()
		if have := served.Load(); have < rounds-1 {
			t.Errorf("served %d, want %d or one more", have, rounds-1)
		}
	}
}

func TestWaitConns(t *testing.T) {
	ctx := testContext(t)
	s, _ := newSet(t)
	l := must(s.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
	if err := l.WaitConns(ctx); err != nil {
		t.Errorf("nothing to wait for: %v", err)
	}
	var conns []*Conn
	for range 3 {
		dial(t, l.Addr())
		a := receive(t, goAccept(l))
		if a.err != nil {
			t.Fatal(a.err)
		}
		conns = append(conns, a.conn)
	}
	l.Pause()
	ended, cancel := context.WithCancelCause(ctx)
	why := errors.New("deadline of the drain")
	waited := make(chan error, 3)
	go func() { waited <- l.WaitConns(ended) }()
	cancel(why)
	if err := receive(t, waited); !errors.Is(err, why) {
		t.Errorf("have %v, want %v", err, why)
	}
	for range 2 {
		go func() { waited <- l.WaitConns(ctx) }()
	}
	conns[1].Close()
	if err := conns[1].Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: have %v, want %v", err, net.ErrClosed)
	}
	if have := l.Conns(); have != 2 {
		t.Errorf("have %d, want 2", have)
	}
	conns[0].Close()
	l.Close()
	if have := l.CloseConns(); have != 1 {
		t.Errorf("closed %d, want 1", have)
	}
	for range 2 {
		if err := receive(t, waited); err != nil {
			t.Error(err)
		}
	}
	if _, err := conns[2].Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after CloseConns: have %v, want %v", err, net.ErrClosed)
	}
}

// A user of net.Listener sees what it would see without Segue: an HTTP server serves, and ends with the error it looks for.
func TestHTTPServer(t *testing.T) {
	s, _ := newSet(t)
	l := must(s.Listen(testContext(t), "web", "tcp", "127.0.0.1:0"))(t)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	client := &http.Client{Transport: &http.Transport{}}
	get := func() {
		resp := must(client.Get("http://" + l.Addr().String()))(t)
		defer resp.Body.Close()
		if body := must(io.ReadAll(resp.Body))(t); string(body) != "hello" {
			t.Errorf("have %q", body)
		}
	}
	get()
	l.Pause()
	get() // on the connection that is open
	l.Resume()
	client.CloseIdleConnections()
	get()
	client.CloseIdleConnections()
	if err := l.WaitConns(testContext(t)); err != nil {
		t.Error(err)
	}
	if err := srv.Shutdown(testContext(t)); err != nil {
		t.Error(err)
	}
	if err := receive(t, served); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("have %v, want %v", err, http.ErrServerClosed)
	}
}

// Errors of accept that are not the pause's work reach the caller as package net makes them: net/http asks them whether they are temporary.
func TestAcceptErrors(t *testing.T) {
	s, _ := newSet(t)
	l := must(s.Listen(testContext(t), "web", "tcp", "127.0.0.1:0"))(t)
	dial(t, l.Addr())
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = lowestFree(t, limit.Cur)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	_, err := l.Accept()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 net/http asks it
	if ne, ok := err.(net.Error); !ok || !ne.Temporary() || !errors.Is(err, syscall.EMFILE) {
		t.Errorf("have %v, want a temporary %v", err, syscall.EMFILE)
	}
	if a := receive(t, goAccept(l)); a.err != nil || l.Conns() != 1 {
		t.Errorf("have %v and %d connections, want it accepted now", a.err, l.Conns())
	}
	l.CloseConns()
}
