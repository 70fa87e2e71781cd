//go:build linux || darwin || freebsd

package handoff

import (
	"errors"
	"io"
	"testing"
	"time"
)

// room receives the question whether there is room.
func (p peer) room() *Ping {
	p.t.Helper()
	message, err := p.Receive(bounded(p.t))
	if err != nil {
		p.t.Fatal(err)
	}
	ping, ok := message.(*Ping)
	if !ok {
		p.t.Fatalf("want a PING, have %+v", message)
	}
	return ping
}

// Invariant 7: a backend that had no room and then hangs is given up like any other, though nothing is under way.
func TestInvariant7SilentBackendWithoutRoomIsGivenUp(t *testing.T) {
	policy := &Policy{Failures: 1}
	pool := &Pool{Policy: policy, Deadline: 200 * time.Millisecond}
	greet := poolOf(t, pool)
	of := begin(t, pool)
	silent := greet(0)
	silent.room()
	if message, err := silent.Receive(bounded(t)); !errors.Is(err, io.EOF) {
		t.Fatalf("want EOF, have %+v, %v", message, err)
	}
	if decision := policy.Decide(pool.Path, Conditions{}); decision.Fallback != FallbackRateLimited {
		t.Errorf("want the failure to count, have %+v", decision)
	}
	undecided(t, of)
	next := greet(1)
	next.say(accepted(next.offer(), 1))
	if err := fate(t, of); err != nil {
		t.Error(err)
	}
}

// A backend that has no room for long, and says so, is not given up.
func TestPoolWaitsForABackendThatSaysThatItHasNoRoom(t *testing.T) {
	pool := &Pool{Deadline: 5 * askAgain}
	greet := poolOf(t, pool)
	of := begin(t, pool)
	full := greet(0)
	for range 7 {
		full.say(&Pong{Number: full.room().Number})
	}
	full.say(&Pong{Number: full.room().Number, Credit: 1})
	full.say(accepted(full.offer(), 1))
	if err := fate(t, of); err != nil {
		t.Error(err)
	}
}
