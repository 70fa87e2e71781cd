package handoff

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestPolicyConditions(t *testing.T) {
	for _, test := range []struct {
		name       string
		conditions Conditions
		want       Fallback
	}{
		{"nothing against it", Conditions{}, ""},
		{"client", Conditions{ClientUnsupported: true}, FallbackClientUnsupported},
		{"service", Conditions{Disabled: true}, FallbackPolicyDisabled},
		{"descriptors", Conditions{DescriptorPressure: true}, FallbackDescriptorPressure},
		{"adopted", Conditions{AdoptedBackend: true}, FallbackAdoptedBackend},
		{"all", Conditions{true, true, true, true}, FallbackClientUnsupported},
	} {
		var policy Policy
		have := policy.Decide("peer", test.conditions)
		if have.Fallback != test.want || have.RetryAfter != 0 || have.Reconnect() != (test.want != "") {
			t.Errorf("%s: want %q, have %+v", test.name, test.want, have)
		}
		if err := have.Err(); errors.Is(err, ErrPolicy) != (test.want != "") || FallbackFor(err) != test.want {
			t.Errorf("%s: want ErrPolicy for %q, have %v", test.name, test.want, err)
		}
	}
}

func TestPolicyWindow(t *testing.T) {
	at := &clock{now: time.Unix(1000, 0)}
	policy := &Policy{Now: at.Now}
	expect := func(when string, want Decision) {
		t.Helper()
		if have := policy.Decide("peer", Conditions{}); have != want {
			t.Errorf("%s: want %+v, have %+v", when, want, have)
		}
	}
	limited := func(after time.Duration) Decision { return Decision{FallbackRateLimited, after} }

	for i := range DefaultFailures {
		expect(fmt.Sprint("after ", i, " failures"), Decision{})
		if want, have := (Decision{Fallback: FallbackAckTimeout}), policy.Failed("peer", ErrUnavailable); have != want {
			t.Errorf("failure %d: want %+v, have %+v", i+1, want, have)
		}
		at.now = at.now.Add(time.Second)
	}
	expect("after 8 in 8 s", limited(22*time.Second))
	err := policy.Decide("peer", Conditions{}).Err()
	if want := "handoff not attempted: failed-attempt rate limited, again in 22s"; err.Error() != want {
		t.Errorf("want %s, have %v", want, err)
	}
	if have := policy.Decide("another peer", Conditions{}); have.Reconnect() {
		t.Errorf("another peer: want an attempt, have %+v", have)
	}
	at.now = at.now.Add(22*time.Second - 1)
	expect("just before the first is old", limited(1))
	at.now = at.now.Add(1)
	expect("when the first is old", Decision{})
	policy.Failed("peer", ErrAckTimeout)
	expect("when that attempt failed too", limited(time.Second))
	at.now = at.now.Add(-time.Hour)
	expect("when the clock was set back", limited(DefaultFailureWindow))
	at.now = at.now.Add(time.Hour)
	policy.Succeeded("peer")
	expect("after a success", Decision{})
	if want, have := 0, len(policy.failed); want != have {
		t.Errorf("peers remembered: want %d, have %d", want, have)
	}
}

func TestPolicyCountsWhatThePeerIsToBlameFor(t *testing.T) {
	for _, test := range []struct {
		failure error
		limited bool
	}{
		{ErrUnavailable, true},
		{ErrTokenMismatch, true},
		{ErrPermission, true},
		{&RefusedError{Sentinel: ErrRefused, Reason: ReasonToken}, true},
		{&RefusedError{Sentinel: ErrRefused, Reason: ReasonKind}, false},
		{ErrDescriptorPressure, false},
		{ErrUnsupported, false},
		{ErrPolicy, false},
		{nil, false},
	} {
		policy := &Policy{Failures: 2}
		for range 3 {
			policy.Failed("peer", test.failure)
		}
		if have := policy.Decide("peer", Conditions{}).Reconnect(); have != test.limited {
			t.Errorf("%v: want limited %v, have %v", test.failure, test.limited, have)
		}
	}
	policy := &Policy{Failures: 2}
	policy.Failed("peer", ErrUnavailable)
	policy.Failed("peer", nil)
	policy.Failed("peer", ErrUnavailable)
	if have := policy.Decide("peer", Conditions{}); have.Reconnect() {
		t.Errorf("failure, success, failure: want an attempt, have %+v", have)
	}
}

func TestPolicyFields(t *testing.T) {
	for _, test := range []struct {
		name     string
		policy   *Policy
		failures int
		span     time.Duration
	}{
		{"zero", &Policy{}, 8, 30 * time.Second},
		{"negative", &Policy{Failures: -1, Window: -1}, 8, 30 * time.Second},
		{"one", &Policy{Failures: 1, Window: 1}, 1, 1},
		{"huge", &Policy{Failures: 1 << 40, Window: time.Hour}, 1024, time.Hour},
	} {
		if have := test.policy.failures(); have != test.failures {
			t.Errorf("%s: want %d failures, have %d", test.name, test.failures, have)
		}
		if have := test.policy.span(); have != test.span {
			t.Errorf("%s: want window %v, have %v", test.name, test.span, have)
		}
	}
}

func TestInvariant7PolicyIsBounded(t *testing.T) {
	at := &clock{now: time.Unix(1000, 0)}
	policy := &Policy{Failures: 2, Peers: 3, Now: at.Now}
	fail := func(peer string) {
		policy.Failed(peer, ErrUnavailable)
		at.now = at.now.Add(time.Second)
	}
	limited := func(peer string) bool { return policy.Decide(peer, Conditions{}).Reconnect() }
	for range 1_000 {
		fail("a")
	}
	if want, have := 2, len(policy.failed["a"].times); want != have {
		t.Errorf("times of one peer: want %d, have %d", want, have)
	}
	for _, peer := range []string{"b", "c", "b", "c", "a"} {
		fail(peer)
	}
	fail("d") // b has not failed for the longest time
	for peer, want := range map[string]bool{"a": true, "b": false, "c": true, "d": false} {
		if have := limited(peer); have != want {
			t.Errorf("peer %s limited: want %v, have %v", peer, want, have)
		}
	}
	at.now = at.now.Add(DefaultFailureWindow)
	fail("e")
	if want, have := 1, len(policy.failed); want != have {
		t.Errorf("after the window: want %d peer, have %d", want, have)
	}
	var defaults Policy
	for i := range DefaultPeers + 100 {
		defaults.Failed(fmt.Sprint(i), ErrUnavailable)
	}
	if want, have := DefaultPeers, len(defaults.failed); want != have {
		t.Errorf("want %d peers, have %d", want, have)
	}
}

func TestPolicyIsSafeForConcurrentUse(t *testing.T) {
	policy := &Policy{Peers: 2}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			peer := fmt.Sprint(i % 3)
			for range 500 {
				policy.Decide(peer, Conditions{})
				policy.Failed(peer, ErrAckTimeout)
				if i == 0 {
					policy.Succeeded(peer)
				}
			}
		})
	}
	group.Wait()
}
