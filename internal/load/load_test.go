package load

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	l, err := Start(t.Context(), Config{Addr: addr, KeepAlive: 1, Post: 1, Fresh: 1, Interval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	got := l.Stop()
	if got.Failed != 3 || got.Refused != 3 || got.Requests != 3 || len(got.Errors) != 3 {
		t.Errorf("got %s, %q; want 3 refused of 3", causesOf(got), got.Errors)
	}
}

// TestRefusedForLong has a crowd meet a server that is not there: it must neither spin nor fill the memory with errors.
func TestRefusedForLong(t *testing.T) {
	s := serve(t, 1, say(good, true))
	addr := s.Addr().String()
	s.Close()
	l, err := Start(t.Context(), Config{Addr: addr, KeepAlive: 3})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	got := l.Stop()
	if most := int64(3 * (300/10 + 30)); got.Refused <= maxErrors || got.Refused > most || len(got.Errors) != maxErrors {
		t.Errorf("refused %d times, want from %d to %d; %d errors, want %d", got.Refused, maxErrors+1, most, len(got.Errors), maxErrors)
	}
}

func TestKinds(t *testing.T) {
	t.Run("keep-alive", func(t *testing.T) {
		s := serve(t, 100, say(good, true))
		got := s.within(t, Config{KeepAlive: 5})
		if s.conns.Load() != 5 || got.Failed != 0 || got.Requests != s.total.Load() || s.total.Load() < 100 {
			t.Errorf("%d connections, served %d; got %s of %d", s.conns.Load(), s.total.Load(), causesOf(got), got.Requests)
		}
		if n := got.Pids["generation 3 pid 7"]; n != got.Requests || got.Answers(7) != n || got.Answers(17) != 0 {
			t.Errorf("%d of %d answers named: %v", n, got.Requests, got.Pids)
		}
	})
	t.Run("fresh", func(t *testing.T) {
		s := serve(t, 20, say(good, true))
		got := s.within(t, Config{Fresh: 2})
		if s.conns.Load() != s.total.Load() || got.Failed != 0 || got.Reconnects != 0 || got.Requests != s.total.Load() {
			t.Errorf("%d connections, served %d; got %s of %d", s.conns.Load(), s.total.Load(), causesOf(got), got.Requests)
		}
	})
	t.Run("fresh, announced", func(t *testing.T) {
		s := serve(t, 20, say(announced(good), false))
		if got := s.within(t, Config{Fresh: 2}); got.Failed != 0 || got.Reconnects != 0 {
			t.Errorf("got %s, want nothing", causesOf(got))
		}
	})
	t.Run("idle", func(t *testing.T) {
		s := serve(t, 4, say(good, true))
		got := s.within(t, Config{Idle: 4})
		if s.conns.Load() != 4 || s.total.Load() != 8 || got.Requests != 8 || got.Failed != 0 || got.Pauses != 0 {
			t.Errorf("%d connections, served %d, got %s of %d; want 8 requests on 4", s.conns.Load(), s.total.Load(), causesOf(got), got.Requests)
		}
	})
	t.Run("idle, marked", func(t *testing.T) {
		s := serve(t, 1, say(good, true))
		l, err := Start(t.Context(), Config{Addr: s.Addr().String(), Idle: 1})
		if err != nil {
			t.Fatal(err)
		}
		l.Mark()()
		if got := l.Stop(); got.Requests != 2 || got.Pauses != 0 {
			t.Errorf("%d requests and %d pauses, want 2 and none", got.Requests, got.Pauses)
		}
	})
	t.Run("idle, cut", func(t *testing.T) {
		s := serve(t, 4, func(turn turn) bool { turn.say(good); return turn.total != 1 })
		got := s.within(t, Config{Idle: 4})
		if got.Requests != 9 || got.Failed != 1 || got.Closed != 1 {
			t.Errorf("got %s of %d; want 1 closed of 9", causesOf(got), got.Requests)
		}
	})
	t.Run("net/http", func(t *testing.T) {
		passed := make(chan struct{})
		var posts atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			io.Copy(w, r.Body)
			if r.Method == "POST" && posts.Add(1) == 40 {
				close(passed)
			}
		}))
		defer server.Close()
		l, err := Start(t.Context(), Config{Addr: server.Listener.Addr().String(), KeepAlive: 2, Post: 4, Body: 1 << 20, Fresh: 2, Idle: 2, Interval: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		<-passed
		if got := l.Stop(); got.Failed != 0 || got.Reconnects != 0 || len(got.Pids) != 0 {
			t.Errorf("got %s, %q, %v", causesOf(got), got.Errors, got.Pids)
		}
	})
}

// TestStartWaits and TestStopWaits hold one client's answer back.
func TestStartWaits(t *testing.T) {
	held, release := make(chan struct{}), make(chan struct{})
	var firsts atomic.Int64
	s := serve(t, 3, func(turn turn) bool {
		if turn.ofConn == 1 && firsts.Add(1) == 3 {
			close(held)
			<-release
		}
		return say(good, true)(turn)
	})
	started := make(chan *Load)
	go func() {
		l, err := Start(t.Context(), Config{Addr: s.Addr().String(), KeepAlive: 3, Interval: 5 * time.Millisecond})
		if err != nil {
			t.Error(err)
		}
		started <- l
	}()
	<-held
	select {
	case <-started:
		t.Error("started before each client was answered")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	l := <-started
	if got := l.Stop(); got.Requests < 3 || got.Failed != 0 {
		t.Errorf("got %s of %d", causesOf(got), got.Requests)
	}
}

func TestStopWaits(t *testing.T) {
	held, release := make(chan struct{}), make(chan struct{})
	s := serve(t, 2, func(turn turn) bool {
		if turn.total == 2 {
			close(held)
			<-release
		}
		return say(good, true)(turn)
	})
	l, err := Start(t.Context(), Config{Addr: s.Addr().String(), KeepAlive: 1})
	if err != nil {
		t.Fatal(err)
	}
	<-held
	stopped := make(chan Report)
	go func() { stopped <- l.Stop() }()
	select {
	case <-stopped:
		t.Error("stopped with a request under way")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	got := <-stopped
	if got.Requests != 2 || got.Failed != 0 {
		t.Errorf("got %s of %d, want 2 requests", causesOf(got), got.Requests)
	}
	s.Close()
	s.wg.Wait() // ends only if the client has closed its connection
	if again := l.Stop(); again.Requests != got.Requests {
		t.Errorf("a second stop answers %d requests, the first %d", again.Requests, got.Requests)
	}
}

// TestStopWakes has Stop interrupt waits that are long: with a connection, without one, and before the first request.
func TestStopWakes(t *testing.T) {
	s := serve(t, 4, say(good, true))
	if got := s.within(t, Config{KeepAlive: 2, Fresh: 2, Interval: time.Second}); got.Failed != 0 || got.LatencyMax > 900*time.Millisecond {
		t.Errorf("got %s, slowest %v", causesOf(got), got.LatencyMax)
	}
}

func TestContext(t *testing.T) {
	t.Run("during start", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := serve(t, 1, func(turn) bool { cancel(); return true })
		if l, err := Start(ctx, Config{Addr: s.Addr().String(), KeepAlive: 3}); err == nil || l != nil {
			t.Errorf("got %v, %v; want the context's error", l, err)
		}
	})
	t.Run("later", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		started, held := make(chan struct{}), make(chan struct{}, 2)
		var answered atomic.Int64
		s := serve(t, -1, func(turn turn) bool {
			select {
			case <-started:
				held <- struct{}{}
				return true
			default:
				answered.Add(1)
				return say(good, true)(turn)
			}
		})
		l, err := Start(ctx, Config{Addr: s.Addr().String(), KeepAlive: 1, Fresh: 1, Idle: 1})
		if err != nil {
			t.Fatal(err)
		}
		close(started)
		<-held
		<-held
		cancel()
		l.running.Wait()
		if got := l.Stop(); got.Failed != 0 || got.Requests != answered.Load() {
			t.Errorf("got %s of %d, %q; want %d requests", causesOf(got), got.Requests, got.Errors, answered.Load())
		}
	})
	t.Run("in a dial", func(t *testing.T) {
		s := serve(t, -1, say(good, true))
		l := &Load{cfg: Config{Addr: s.Addr().String(), Timeout: time.Minute}, ctx: t.Context(), cancel: func() {}}
		c := newClient(l, keepAlive, 1, time.Now())
		l.abort() // finds no connection to cut
		if err := c.dial(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a connection of an aborted load is open: %v", err)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		// Nobody accepts, so that nothing is answered.
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := Start(ctx, Config{Addr: ln.Addr().String(), KeepAlive: 1}); !isDeadline(err) {
			t.Errorf("got %v", err)
		}
	})
}

func isDeadline(err error) bool {
	return err != nil && strings.Contains(err.Error(), context.DeadlineExceeded.Error())
}
