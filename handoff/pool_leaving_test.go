//go:build linux || darwin || freebsd

package handoff

import (
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// Who is refused because the backend stops is not offered to it again, but to the next at its socket.
func TestPoolLeavesABackendThatStops(t *testing.T) {
	pool := new(Pool)
	greet := poolOf(t, pool)
	of := begin(t, pool)
	stopping := greet(10)
	refused := stopping.offer()
	stopping.say(&Ack{Offer: refused.ID, Results: []Result{{ID: 1, Reason: ReasonStopped}}, Credit: 10, Token: refused.Token, Correlation: refused.Correlation})
	next := greet(10)
	next.say(accepted(next.offer(), 10))
	if err := fate(t, of); err != nil {
		t.Error(err)
	}
}

// Invariant 7: a backend that says nothing but goodbye is not dialed without a pause.
func TestInvariant7BackendThatOnlyLeaves(t *testing.T) {
	listener, path := listen(t)
	pool := &Pool{Path: path}
	var dialed atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			dialed.Add(1)
			s := NewSession(conn.(*net.UnixConn))
			s.broker()
			if _, err := s.welcome(t.Context(), Welcome{Limits: Limits{Credit: 1}}, func(Token) error { return nil }); err == nil {
				_ = s.Send(t.Context(), &Bye{})
			}
			s.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		pool.Close()
	})
	began := time.Now()
	_ = begin(t, pool)
	for dialed.Load() < 6 {
		time.Sleep(time.Millisecond)
	}
	if took := time.Since(began); took < (1+2+4+8)*shortestRedial {
		t.Errorf("dialed 6 times in %v", took)
	}
}
