//go:build linux || darwin || freebsd

package restart

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/segue-go/segue/handoff"
)

// A predecessor whose offers contradict each other is told why, and nothing of them is taken.
func TestInvariant7OffersThatDoNotFitTogetherEndTheSession(t *testing.T) {
	type hostile struct {
		name    string
		entries []handoff.Entry
		want    error
		has     string
	}
	var tests []hostile
	for _, test := range hostileStates {
		switch test.name {
		case "too much at once", "too much", "nothing": // which package handoff does not even send
		default:
			tests = append(tests, hostile(test))
		}
	}
	counter := func(name string, data string) handoff.Entry {
		return handoff.Entry{Kind: kindCounter, Name: name, Data: []byte(data)}
	}
	tests = append(tests,
		hostile{"short counter", []handoff.Entry{counter("a", "1234567")}, ErrCounter, `counter "a": invalid counter: 7 bytes of data, want 8`},
		hostile{"long counter", []handoff.Entry{counter("a", "123456789")}, ErrCounter, `9 bytes`},
		hostile{"counter twice", []handoff.Entry{counter("a", "12345678"), counter("a", "12345678")}, ErrCounter, `counter "a": invalid counter: it came already`},
		hostile{"counter without name", []handoff.Entry{counter("", "12345678")}, ErrCounter, ""},
		hostile{"counter in parts", []handoff.Entry{{Kind: kindCounter, Name: "a", Data: []byte("12345678"), Size: 16}}, ErrCounter, `"a"`},
	)
	for _, test := range tests {
		for _, apart := range []bool{false, true} { // all in one offer, or one in each
			var offers []*handoff.Offer
			for i, entry := range test.entries {
				entry.ID = uint64(i + 1)
				if apart || i == 0 {
					offers = append(offers, &handoff.Offer{ID: uint64(len(offers) + 1), More: true})
				}
				last := offers[len(offers)-1]
				last.Entries = append(last.Entries, entry)
			}
			offers[len(offers)-1].More = false
			g := newTwin(t)
			inherited, told := inheritFromScript(t, g, nil, func(ctx context.Context, session *handoff.Session) error {
				return offerAll(ctx, session, offers...)
			})
			if !errors.Is(inherited, test.want) || !errors.Is(inherited, handoff.ErrOffer) || !strings.Contains(inherited.Error(), test.has) {
				t.Errorf("%s: want %v with %s, have %v", test.name, test.want, test.has, inherited)
			}
			var refused *handoff.RefusedError
			if !errors.As(told, &refused) || refused.Reason != handoff.ReasonMalformed || !strings.Contains(refused.Detail, test.has) {
				t.Errorf("%s: predecessor: want %q with %s, have %v", test.name, handoff.ReasonMalformed, test.has, told)
			}
			g.abandon()
		}
	}
}

// A predecessor that dies in the middle of a value leaves none.
func TestDeathOfThePredecessorInTheMiddleOfAState(t *testing.T) {
	g := newTwin(t)
	defer g.abandon()
	inherited, err := inheritFromScript(t, g, nil, func(ctx context.Context, session *handoff.Session) error {
		return errors.Join(offerAll(ctx, session, &handoff.Offer{ID: 1, More: true, Entries: []handoff.Entry{
			{ID: 1, Kind: kindState, Name: "whole", Data: []byte("all")},
			{ID: 2, Kind: kindState, Name: "cut", Data: []byte("beg"), Size: MaxState},
		}}), session.Close())
	})
	if err != nil || !isGone(inherited) {
		t.Fatalf("want the end of the session, have %v, %v", inherited, err)
	}
	var whole, cut []byte
	if err := errors.Join(g.State("whole", into(&whole)), g.State("cut", into(&cut))); err != nil || string(whole) != "all" || cut != nil {
		t.Errorf("want all of one and nothing of the other, have %q, %q, %v", whole, cut, err)
	}
}

func TestLargestStateTravels(t *testing.T) {
	want := make([]byte, MaxState)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(want) // never fails
	sum := sha256.Sum256(want)
	first := runFirst(t, newTwin(t))
	if err := first.State("large", fixed(want, nil)); err != nil {
		t.Fatal(err)
	}
	var have [sha256.Size]byte
	next := first.upgrade(t, func(g *Generation) {
		if err := g.State("large", Codec{Decode: func(value []byte) error { have = sha256.Sum256(value); return nil }}); err != nil {
			t.Fatal(err)
		}
	})
	first.leave()
	next.awaitPredecessor(t)
	if sum != have {
		t.Errorf("want %x, have %x", sum, have)
	}
	if next.states.inherited != nil {
		t.Error("the successor holds the bytes still")
	}
}

// What the first peers of version 1 do not know they are not sent, and do not miss.
func TestSuccessorOfAnOlderVersion(t *testing.T) {
	for _, test := range []struct {
		name  string
		state []byte
		want  error
	}{
		{"small state", []byte("small"), nil},
		{"large state", make([]byte, handoff.MaxData+1), ErrStateTooLarge},
	} {
		g := newTwin(t)
		counter, err := g.Counter("requests")
		if err != nil {
			t.Fatal(err)
		}
		counter.Add(5)
		if err := g.State("state", fixed(test.state, nil)); err != nil {
			t.Fatal(err)
		}
		c := newConversation(t)
		var kinds []string
		go func() {
			successor := handoff.NewSession(c.successor)
			_ = successor.Send(t.Context(), &handoff.Hello{Version: 1, Capabilities: firstCapabilities, Token: c.token})
			for {
				message, err := successor.Receive(t.Context())
				if err != nil {
					return
				}
				if offer, ok := message.(*handoff.Offer); ok {
					ack := &handoff.Ack{Offer: offer.ID}
					for _, entry := range offer.Entries {
						kinds = append(kinds, entry.Kind)
						ack.Results = append(ack.Results, handoff.Result{ID: entry.ID, Accepted: true})
					}
					_ = successor.Send(t.Context(), ack)
					_ = successor.Send(t.Context(), &handoff.Ready{})
				}
			}
		}()
		a := &attempt{Generation: g, record: newRecord(1), session: c.predecessor, candidate: roommate{}, hello: g.options.UpgradeTimeout}
		err = a.handOver(t.Context(), c.tokens, c.token)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, err)
		}
		if err == nil && (len(kinds) != 1 || kinds[0] != kindState) {
			t.Errorf("%s: want one state, have %v", test.name, kinds)
		}
		if a.counting != nil {
			t.Errorf("%s: it would be sent COUNTED", test.name)
		}
		g.abandon()
	}
}

func TestPredecessorOfAnOlderVersion(t *testing.T) {
	g := newTwin(t)
	defer g.abandon()
	inherited, err := inheritFromScript(t, g, firstCapabilities, func(ctx context.Context, session *handoff.Session) error {
		return offerAll(ctx, session, &handoff.Offer{ID: 1, Entries: []handoff.Entry{{ID: 1, Kind: kindState, Name: "state", Data: []byte("small")}}})
	})
	if err := errors.Join(inherited, err); err != nil {
		t.Fatal(err)
	}
	var have []byte
	if err := g.State("state", into(&have)); err != nil || !bytes.Equal([]byte("small"), have) {
		t.Errorf("want the state, have %q, %v", have, err)
	}
	counter, err := g.Counter("requests")
	if err != nil || counter.Value() != 0 {
		t.Errorf("want a counter at 0, have %v, %v", counter, err)
	}
}
