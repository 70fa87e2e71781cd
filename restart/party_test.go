package restart

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/scm"
	"github.com/segue-go/segue/internal/wire"
	"github.com/segue-go/segue/listener"
)

func TestOffersHaveRoomForWhatTravelsTogether(t *testing.T) {
	group := func(state int, members int) *party {
		p := &party{kind: "test", state: make([]byte, state)}
		for range members {
			p.members = append(p.members, &listener.Detached{})
		}
		return p
	}
	http := moving{Detached: &listener.Detached{}}
	for _, test := range []struct {
		name   string
		queue  []*party // nil for a connection of net/http
		room   int
		want   []int // connections in each offer
		remain int
	}{
		{"one each", []*party{nil, group(0, 1), nil}, 253, []int{3}, 0},
		{"no room for both of a pair", []*party{nil, group(0, 2), nil}, 2, []int{1, 2, 1}, 0},
		{"no room for a pair at all", []*party{group(0, 2)}, 1, []int{0}, 2},
		{"small states", []*party{group(100, 1), group(100, 1)}, 253, []int{2}, 0},
		{"half an offer each", []*party{group(300<<10, 1), group(300<<10, 1), nil}, 253, []int{1, 2}, 0},
		{"as much as may be", []*party{group(MaxConnState, 1), nil, group(MaxConnState, 1)}, 253, []int{2, 1}, 0},
		{"a whole room", []*party{nil, group(MaxConnState, MaxConns), nil}, 253, []int{1, 253, 1}, 0},
	} {
		q := newDepartures()
		q.setOpen(true)
		for _, p := range test.queue {
			if p == nil {
				q.put(http, false)
			} else if !q.expect(p.kind, len(p.members)) || !q.putParty(p) {
				t.Fatalf("%s: not wanted", test.name)
			}
		}
		for i, want := range test.want {
			if have := len(q.take(test.room)); have != want {
				t.Errorf("%s: offer %d: want %d connections, have %d", test.name, i+1, want, have)
			}
		}
		if have := len(q.queue); have != test.remain {
			t.Errorf("%s: want %d left, have %d", test.name, test.remain, have)
		}
	}
}

// The largest offer that there can be fits into a frame.
func TestLargestOfferFits(t *testing.T) {
	p := &party{kind: string(bytes.Repeat([]byte("k"), handoff.MaxName)), state: make([]byte, MaxConnState-MaxConns)}
	for range MaxConns {
		d := &listener.Detached{Residual: []byte{0}, Listener: string(bytes.Repeat([]byte("l"), 255))}
		d.Options.TCP, d.Options.NoDelay = true, true
		d.Options.KeepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Hour, Interval: time.Hour, Count: 1 << 30}
		p.members = append(p.members, d)
	}
	offer := &handoff.Offer{ID: 1 << 60, Count: MaxConns}
	for i, c := range p.moving() {
		entry, err := c.entry()
		if err != nil {
			t.Fatal(err)
		}
		if len(entry.Data) > handoff.MaxData {
			t.Errorf("entry %d: %d bytes of data, at most %d", i, len(entry.Data), handoff.MaxData)
		}
		entry.ID = uint64(i + 1)
		offer.Entries = append(offer.Entries, entry)
	}
	if _, err := wire.AppendFrame(nil, 4, offer); err != nil {
		t.Error(err)
	}
}

func TestInvariant7ImpossiblePartiesAreRefused(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r := &rawConns{adopters: map[string]adopterOf{"one": {single: true}, "all": {}}}
	type packed = rawLuggage
	for _, test := range []struct {
		name    string
		kind    string
		members []packed
		bare    int // which entry has no descriptor, from 1
		want    error
	}{
		{"one", "one", []packed{{State: []byte("state")}}, 0, nil},
		{"three", "all", []packed{{State: make([]byte, MaxConnState)}, {}, {luggage: luggage{Residual: []byte("rest")}}}, 0, nil},
		{"two for one", "one", []packed{{}, {}}, 0, errKind},
		{"unknown kind", "none", []packed{{}}, 0, errKind},
		{"no descriptor", "all", []packed{{}, {}}, 2, handoff.ErrMalformed},
		{"second state", "all", []packed{{}, {State: []byte("state")}}, 0, handoff.ErrMalformed},
		{"large state", "one", []packed{{State: make([]byte, MaxConnState+1)}}, 0, handoff.ErrMalformed},
		{"slot", "one", []packed{{luggage: luggage{Slot: 1}}}, 0, handoff.ErrMalformed},
		{"idle", "one", []packed{{luggage: luggage{Idle: true}}}, 0, handoff.ErrMalformed},
	} {
		var entries []handoff.Entry
		for i, member := range test.members {
			data, err := wire.Marshal(member)
			if err != nil {
				t.Fatal(err)
			}
			entry := handoff.Entry{Kind: kindBeside, Name: test.kind, Data: data}
			if i == 0 {
				entry.Kind = kindRaw
			}
			if i+1 != test.bare {
				if entry.Descriptor, err = scm.Duplicate(null); err != nil {
					t.Fatal(err)
				}
				defer entry.Descriptor.Close()
			}
			entries = append(entries, entry)
		}
		p, err := r.arrival(entries)
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, err)
		}
		if err != nil {
			continue
		}
		for i, d := range p.members {
			if d.Descriptor == nil || entries[i].Descriptor != nil || !bytes.Equal(d.Residual, test.members[i].Residual) {
				t.Errorf("%s: connection %d did not arrive as it was packed: %+v", test.name, i, d)
			}
		}
		if !bytes.Equal(p.state, test.members[0].State) {
			t.Errorf("%s: state did not arrive", test.name)
		}
	}
}

func TestSuccessorTakesAllThatTravelTogetherOrNone(t *testing.T) {
	p := &party{members: []*listener.Detached{{}, {}}}
	b := newBatch(1, append([]moving{{Detached: &listener.Detached{}}}, p.moving()...))
	b.offer.Entries = make([]handoff.Entry, 3)
	for _, test := range []struct {
		accepted [3]bool
		want     error
	}{
		{[3]bool{true, true, true}, nil},
		{[3]bool{true, false, false}, nil},
		{[3]bool{false, true, true}, nil},
		{[3]bool{true, true, false}, handoff.ErrAck},
		{[3]bool{true, false, true}, handoff.ErrAck},
	} {
		ack := &handoff.Ack{Offer: 1}
		for _, accepted := range test.accepted {
			ack.Results = append(ack.Results, handoff.Result{Accepted: accepted})
		}
		if err := b.check(ack); !errors.Is(err, test.want) {
			t.Errorf("%v: want %v, have %v", test.accepted, test.want, err)
		}
	}
}

// detachable returns a generation and a connection of it that could be handed on if it were leaving.
func detachable(t *testing.T) (*Generation, *listener.Conn, net.Conn) {
	t.Helper()
	g := &Generation{moving: t.Context(), leaving: make(chan struct{})}
	g.raw = newRawConns(g)
	c, peer := owned(t, g)
	return g, c, peer
}

// owned returns a connection that a generation has dialed, and its peer.
func owned(t *testing.T, g *Generation) (*listener.Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialed, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	c, err := g.Own(dialed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, peer
}

func TestInvariant3DetachThatFailsLeavesTheConnection(t *testing.T) {
	g, c, peer := detachable(t)
	g.Adopt("one", func(context.Context, *listener.Conn, []byte) {})
	m := &mover{departures: newDepartures()}
	m.departures.unwant("unwanted")
	g.Adopt("unwanted", func(context.Context, *listener.Conn, []byte) {})
	two := []*listener.Conn{c, c}
	for _, test := range []struct {
		name    string
		leaving bool
		mover   *mover
		kind    string
		state   int
		conns   []*listener.Conn
		want    error
	}{
		{"serving", false, nil, "one", 0, two[:1], ErrNotLeaving},
		{"nobody there", true, nil, "one", 0, two[:1], ErrNoSuccessor},
		{"successor does not know it", true, m, "unwanted", 0, two[:1], ErrNoSuccessor},
		{"not known here", true, m, "none", 0, two[:1], ErrNoAdopter},
		{"two for one", true, m, "one", 0, two, ErrNoAdopter},
		{"none", true, m, "one", 0, nil, ErrNoAdopter},
		{"large", true, m, "one", MaxConnState + 1, two[:1], ErrConnState},
	} {
		if test.leaving {
			g.raw.leave()
		}
		g.successor = &successor{mover: test.mover}
		if err := g.Detach(test.kind, make([]byte, test.state), test.conns...); !errors.Is(err, test.want) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, err)
		}
	}
	if m.departures.pending != 0 {
		t.Errorf("want nothing under way, have %d", m.departures.pending)
	}
	if _, err := c.Write([]byte("on")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(peer, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
}

// What could not be handed over is with its adopter again, with its state, and knows that it is to be drained.
func TestInvariant3WhatIsNotTakenComesBack(t *testing.T) {
	g, c, peer := detachable(t)
	type back struct {
		c     *listener.Conn
		state string
		left  bool
		again error
	}
	came := make(chan back)
	done := make(chan struct{})
	g.Adopt("one", func(ctx context.Context, c *listener.Conn, state []byte) {
		came <- back{c, string(state), ctx.Err() != nil, g.Detach("one", state, c)}
		<-done
	})
	g.raw.leave()
	m := &mover{departures: newDepartures()}
	g.successor = &successor{mover: m}
	c.Unread([]byte("rest"))
	if err := g.Detach("one", []byte("state"), c); err != nil {
		t.Fatal(err)
	}
	taken := m.departures.take(10)
	if len(taken) != 1 || m.departures.pending != 1 {
		t.Fatalf("want 1 taken and under way, have %d, %d", len(taken), m.departures.pending)
	}
	if err := taken[0].takeBack(); err != nil {
		t.Fatal(err)
	}
	b := <-came
	if b.state != "state" || !b.left || !b.c.Refused() || !errors.Is(b.again, ErrNoSuccessor) {
		t.Errorf("want the state, a generation that has left, a refused connection, ErrNoSuccessor; have %q, %v, %v, %v", b.state, b.left, b.c.Refused(), b.again)
	}
	rest := make([]byte, 4)
	if _, err := io.ReadFull(b.c, rest); err != nil || string(rest) != "rest" {
		t.Errorf("want what was not read, have %q, %v", rest, err)
	}
	close(done)
	if _, err := peer.Read(rest); err != io.EOF { // when the adopter returns
		t.Errorf("want EOF, have %v", err)
	}
}

// A party that could not come back is cut, with all its members. None of them has ended here besides: they were nobody's.
func TestPartyThatCannotComeBackIsCut(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, test := range []struct {
		name  string
		spoil func(*Generation, *party)
	}{
		{"after the end of the drain", func(g *Generation, _ *party) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			g.raw.moving = ctx
		}},
		{"the last of it is no connection", func(_ *Generation, p *party) {
			_ = p.members[2].Close()
			if p.members[2].Descriptor, err = scm.Duplicate(null); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		g, a, _ := detachable(t)
		b, _ := owned(t, g)
		c, _ := owned(t, g)
		g.AdoptAll("three", func(context.Context, []*listener.Conn, []byte) { t.Errorf("%s: served", test.name) })
		members, err := listener.DetachConns(a, b, c)
		if err != nil {
			t.Fatal(err)
		}
		p := &party{kind: "three", members: members, home: g.raw}
		test.spoil(g, p)
		m := &mover{log: slog.New(slog.DiscardHandler)}
		for _, c := range p.moving() {
			m.giveBack(c)
		}
		if cut, ended := m.cut.Load(), g.ended(); cut != 3 || ended != 0 {
			t.Errorf("%s: want 3 cut, and none ended besides; have %d, %d", test.name, cut, ended)
		}
		if have := g.raw.strays.Conns(); have != 0 {
			t.Errorf("%s: %d connections are open", test.name, have)
		}
	}
}

// The Observer is told of connections that are served here, and a party is served as a whole or not at all.
func TestObserverIsToldOfWhatWasAdopted(t *testing.T) {
	for _, test := range []struct {
		name    string
		drained bool // it takes nothing any more
		want    []int
	}{
		{"served", false, []int{3}},
		{"not served", true, nil},
	} {
		g, a, _ := detachable(t)
		b, _ := owned(t, g)
		c, _ := owned(t, g)
		if test.drained {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			g.raw.moving = ctx
		}
		g.AdoptAll("three", func(context.Context, []*listener.Conn, []byte) {})
		members, err := listener.DetachConns(a, b, c)
		if err != nil {
			t.Fatal(err)
		}
		p := &party{kind: "three", members: members, home: g.raw}
		var told []int
		adopter := adopter{adopted: func(n int) { told = append(told, n) }, pending: map[uint64][]adoptee{1: p.adoptees()}}
		if err := adopter.grant([]uint64{1}); (err != nil) != test.drained {
			t.Errorf("%s: %v", test.name, err)
		}
		if !slices.Equal(test.want, told) {
			t.Errorf("%s: want it told of %v, have %v", test.name, test.want, told)
		}
	}
}
