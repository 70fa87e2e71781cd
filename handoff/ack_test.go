package handoff

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// waiting returns a registry in which offers 1 to count wait for their acks, each with its id as value.
func waiting(t *testing.T, at *clock, count uint64) (registry *AckRegistry[uint64], tokens map[uint64]Token) {
	t.Helper()
	registry = &AckRegistry[uint64]{Tokens: &TokenStore{Now: at.Now}, Now: at.Now}
	tokens = make(map[uint64]Token)
	for id := uint64(1); id <= count; id++ {
		token, err := registry.Tokens.Issue()
		if err != nil {
			t.Fatal(err)
		}
		if err := registry.Register(id, token, id); err != nil {
			t.Fatal(err)
		}
		tokens[id] = token
	}
	return registry, tokens
}

func TestAcksComeInAnyOrder(t *testing.T) {
	registry, tokens := waiting(t, &clock{now: time.Unix(1000, 0)}, 3)
	for i, id := range []uint64{2, 3, 1} {
		if have, err := registry.Acknowledge(id, tokens[id]); have != id || err != nil {
			t.Errorf("offer %d: have %d, %v", id, have, err)
		}
		if want, have := 2-i, registry.Pending(); want != have {
			t.Errorf("waiting: want %d, have %d", want, have)
		}
		if want, have := 2-i, registry.Tokens.Pending(); want != have {
			t.Errorf("pending tokens: want %d, have %d", want, have)
		}
	}
}

func TestInvariant4AckThatDoesNotCount(t *testing.T) {
	for _, test := range []struct {
		name    string
		ack     func(t *testing.T, at *clock, registry *AckRegistry[uint64], right, other Token) (uint64, error)
		want    error
		value   uint64 // to be taken back
		waiting int
		pending int // tokens, of two
	}{
		{"unknown offer", func(_ *testing.T, _ *clock, r *AckRegistry[uint64], right, _ Token) (uint64, error) {
			return r.Acknowledge(9, right)
		}, ErrAck, 0, 2, 2},
		{"no echo", func(_ *testing.T, _ *clock, r *AckRegistry[uint64], _, _ Token) (uint64, error) {
			return r.Acknowledge(1, Token{})
		}, ErrTokenMissing, 0, 2, 2},
		{"echo of another offer", func(_ *testing.T, _ *clock, r *AckRegistry[uint64], _, other Token) (uint64, error) {
			return r.Acknowledge(1, other)
		}, ErrTokenMismatch, 0, 2, 2},
		{"twice", func(t *testing.T, _ *clock, r *AckRegistry[uint64], right, _ Token) (uint64, error) {
			if _, err := r.Acknowledge(1, right); err != nil {
				t.Error(err)
			}
			return r.Acknowledge(1, right)
		}, ErrAck, 0, 1, 1},
		{"late, before the sweep", func(_ *testing.T, at *clock, r *AckRegistry[uint64], right, _ Token) (uint64, error) {
			at.now = at.now.Add(DefaultAckDeadline)
			return r.Acknowledge(1, right)
		}, ErrAckTimeout, 1, 1, 1},
		{"late, after the sweep", func(t *testing.T, at *clock, r *AckRegistry[uint64], right, _ Token) (uint64, error) {
			at.now = at.now.Add(DefaultAckDeadline)
			if want, have := []uint64{1, 2}, r.Expire(); !slices.Equal(want, have) {
				t.Errorf("overdue: want %v, have %v", want, have)
			}
			return r.Acknowledge(1, right)
		}, ErrAck, 0, 0, 0},
		{"abandoned", func(t *testing.T, _ *clock, r *AckRegistry[uint64], right, _ Token) (uint64, error) {
			if value, ok := r.Abandon(1); value != 1 || !ok {
				t.Errorf("abandon: have %d, %v", value, ok)
			}
			if value, ok := r.Abandon(1); value != 0 || ok {
				t.Errorf("abandon again: have %d, %v", value, ok)
			}
			return r.Acknowledge(1, right)
		}, ErrAck, 0, 1, 1},
		{"token revoked meanwhile", func(_ *testing.T, _ *clock, r *AckRegistry[uint64], right, _ Token) (uint64, error) {
			r.Tokens.Revoke(right)
			return r.Acknowledge(1, right)
		}, ErrTokenNotPending, 1, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			at := &clock{now: time.Unix(1000, 0)}
			registry, tokens := waiting(t, at, 2)
			value, err := test.ack(t, at, registry, tokens[1], tokens[2])
			if !errors.Is(err, test.want) || value != test.value {
				t.Errorf("want %d, %v, have %d, %v", test.value, test.want, value, err)
			}
			if have := registry.Pending(); have != test.waiting {
				t.Errorf("waiting: want %d, have %d", test.waiting, have)
			}
			if have := registry.Tokens.Pending(); have != test.pending {
				t.Errorf("pending tokens: want %d, have %d", test.pending, have)
			}
		})
	}
}

func TestAckDeadline(t *testing.T) {
	at := &clock{now: time.Unix(1000, 0)}
	registry, tokens := waiting(t, at, 1)
	registry.Deadline = time.Second
	at.now = at.now.Add(time.Second)
	if err := registry.Register(2, parse(t, secret), 2); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		after time.Duration
		want  []uint64
	}{{time.Second - 1, nil}, {1, []uint64{2}}, {3*time.Second - 1, nil}, {1, []uint64{1}}, {time.Hour, nil}} {
		due, ok := registry.Next()
		at.now = at.now.Add(test.after)
		if have := registry.Expire(); !slices.Equal(test.want, have) {
			t.Errorf("at %v: want %v, have %v", at.now, test.want, have)
		}
		if overdue := ok && !at.now.Before(due); overdue != (len(test.want) > 0) {
			t.Errorf("at %v: next was %v, %v", at.now, due, ok)
		}
	}
	if err := registry.Tokens.Consume(tokens[1]); !errors.Is(err, ErrTokenNotPending) {
		t.Errorf("token of an overdue offer: want ErrTokenNotPending, have %v", err)
	}
}

func TestRegister(t *testing.T) {
	at := &clock{now: time.Unix(1000, 0)}
	registry := &AckRegistry[string]{Capacity: 2, Now: at.Now}
	token := parse(t, secret)
	for _, test := range []struct {
		id    uint64
		token Token
		want  error
	}{
		{1, Token{}, ErrTokenMissing},
		{1, token, nil},
		{1, token, ErrOffer},
		{2, token, nil},
		{3, token, ErrDescriptorPressure},
	} {
		if have := registry.Register(test.id, test.token, "value"); !errors.Is(have, test.want) {
			t.Errorf("offer %d: want %v, have %v", test.id, test.want, have)
		}
	}
	// Without a store of tokens the echo counts alone.
	if value, err := registry.Acknowledge(2, parse(t, secret)); value != "value" || err != nil {
		t.Errorf("have %q, %v", value, err)
	}
	if have := registry.AbandonAll(); !slices.Equal(have, []string{"value"}) {
		t.Errorf("abandon all: have %q", have)
	}
	if due, ok := registry.Next(); ok {
		t.Errorf("empty: want nothing due, have %v", due)
	}
}

func TestInvariant7OffersWithoutAck(t *testing.T) {
	at := &clock{now: time.Unix(1000, 0)}
	tokens := &TokenStore{Now: at.Now}
	registry := &AckRegistry[uint64]{Tokens: tokens, Now: at.Now}
	policy := &Policy{Now: at.Now}
	fallbacks := make(map[Fallback]int)
	fail := func(err error) { fallbacks[policy.Failed("silent", err).Fallback]++ }
	for id := range uint64(10_000) {
		if decision := policy.Decide("silent", Conditions{}); decision.Reconnect() {
			fallbacks[decision.Fallback]++
			continue
		}
		token, err := tokens.Issue()
		if err != nil {
			fail(err)
		} else if err := registry.Register(id, token, id); err != nil {
			t.Fatal(err)
		}
		if id == 8_000 {
			at.now = at.now.Add(DefaultAckDeadline)
			for range registry.Expire() {
				fail(ErrAckTimeout)
			}
		}
	}
	for fallback, want := range map[Fallback]int{
		FallbackDescriptorPressure: 8_001 - DefaultTokenCapacity,
		FallbackAckTimeout:         DefaultTokenCapacity,
		FallbackRateLimited:        10_000 - 8_001,
	} {
		if have := fallbacks[fallback]; have != want {
			t.Errorf("%s: want %d, have %d", fallback, want, have)
		}
	}
	if registry.Pending() != 0 || tokens.Pending() != 0 {
		t.Errorf("want nothing left, have %d offers, %d tokens", registry.Pending(), tokens.Pending())
	}
}

func TestAckRegistryIsSafeForConcurrentUse(t *testing.T) {
	tokens := &TokenStore{}
	registry := &AckRegistry[uint64]{Tokens: tokens, Deadline: time.Millisecond}
	var ended sync.Map
	end := func(values ...uint64) {
		for _, value := range values {
			if _, twice := ended.LoadOrStore(value, true); twice {
				t.Errorf("offer %d ended twice", value)
			}
		}
	}
	const workers, each = 4, 200
	var group sync.WaitGroup
	for worker := range uint64(workers) {
		group.Go(func() {
			for i := range uint64(each) {
				id := worker*each + i
				token, err := tokens.Issue()
				if err != nil {
					t.Error(err)
					return
				}
				if err := registry.Register(id, token, id); err != nil {
					t.Error(err)
					return
				}
				if value, err := registry.Acknowledge(id, token); err == nil || errors.Is(err, ErrAckTimeout) {
					end(value)
				}
				end(registry.Expire()...)
			}
		})
	}
	group.Wait()
	end(registry.AbandonAll()...)
	count := 0
	ended.Range(func(any, any) bool { count++; return true })
	if count != workers*each || tokens.Pending() != 0 {
		t.Errorf("want %d offers ended and no token, have %d and %d", workers*each, count, tokens.Pending())
	}
}
