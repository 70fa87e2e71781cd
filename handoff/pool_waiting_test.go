//go:build linux || darwin || freebsd

package handoff

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// A connection that has waited too long, and was not sent away yet, does not stand in the way of later ones for ever.
func TestPoolGoesOnAfterWhatWaitedTooLong(t *testing.T) {
	var past atomic.Int64
	pool := &Pool{Wait: time.Hour}
	pool.queue.Now = func() time.Time { return time.Now().Add(time.Duration(past.Load())) }
	greet := poolOf(t, pool)
	late := begin(t, pool)
	backend := greet(0)
	past.Store(int64(2 * time.Hour))
	if _, err := backend.Receive(bounded(t)); err != nil { // the PING that asks for room
		t.Fatal(err)
	}
	backend.say(&Pong{Credit: 1})
	for { // until it is known
		pool.mu.Lock()
		room := pool.link != nil && pool.link.room() > 0
		pool.mu.Unlock()
		if room {
			break
		}
		runtime.Gosched()
	}
	second := begin(t, pool)
	pool.expire()
	if err := fate(t, late); !errors.Is(err, ErrWouldBlock) {
		t.Errorf("want ErrWouldBlock, have %v", err)
	}
	backend.say(accepted(backend.offer(), 1))
	if err := fate(t, second); err != nil {
		t.Error(err)
	}
}
