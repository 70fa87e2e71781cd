//go:build linux || darwin || freebsd

package handoff

import "testing"

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
