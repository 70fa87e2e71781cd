//go:build linux || darwin || freebsd

package restart

import (
	"context"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/listener"
)

// A successor that has room for one connection is asked until it has room for the two that go together.
func TestSuccessorWithLittleRoomIsAskedForMore(t *testing.T) {
	g, a, _ := detachable(t)
	g.log = lonelyOptions(t).Logger
	c := newConversation(t)
	here, there := c.predecessor, handoff.NewSession(c.successor)
	defer here.Close()
	defer there.Close()
	back := make(chan struct{}, 1)
	g.AdoptAll("pair", func(context.Context, []*listener.Conn, []byte) { back <- struct{}{} })
	m := &mover{session: here, log: g.log, credit: 1, departures: newDepartures(), underWay: make(map[uint64]*batch), done: make(chan struct{})}
	g.successor = &successor{mover: m}
	g.raw.leave()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	incoming := make(chan received)
	go m.run(ctx, incoming)
	defer func() { cancel(); <-m.done }()
	pair := func(a *listener.Conn) {
		b, _ := owned(t, g)
		if err := g.Detach("pair", nil, a, b); err != nil {
			t.Fatal(err)
		}
	}
	pair(a)
	<-back
	ping := receiveType[*handoff.Ping](ctx, t, there)
	incoming <- received{message: &handoff.Pong{Number: ping.Number, Credit: 1000}}
	b, _ := owned(t, g)
	pair(b)
	receiveType[*handoff.Offer](ctx, t, there)
}

// receiveType returns the next message of a type.
func receiveType[M handoff.Message](ctx context.Context, t *testing.T, from *handoff.Session) M {
	t.Helper()
	for {
		message, err := from.Receive(ctx)
		if err != nil {
			t.Fatalf("want a %T, have %v", *new(M), err)
		}
		if m, ok := message.(M); ok {
			return m
		}
	}
}
