package restart

import (
	"context"
	"sync"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/listener"
)

// Handoffs serves clients that brokers hand over through socket, a Unix socket, as if ln had accepted them: call HTTP for ln as well. In an upgrade the
// brokers come to the successor by themselves, with whatever was not acknowledged, and the clients' connections move like all others of ln.
//
// In the bare form nobody answers a broker, so a generation that leaves still takes what was sent to it over a socket that it had accepted.
//
// It sets backend's Adopt, and its Credit if that is nil: for as many as there are descriptors.
func (g *Generation) Handoffs(socket, ln *listener.Listener, backend *handoff.Backend) {
	backend.Adopt = func(client *handoff.Client) (func(bool), error) {
		serve, err := g.intake.take(ln, client)
		if err != nil && backend.Bare != nil { // else the broker is told
			g.log.Warn("connection that was handed over is lost", "listener", socket.Name(), "error", err)
		}
		return serve, err
	}
	if backend.Credit == nil {
		backend.Credit = g.intake.credit
	}
	inside := new(sync.WaitGroup)
	if backend.Bare != nil {
		inside = &g.intake.bare
	}
	g.serveAccepted(socket, inside, func(ctx context.Context, c *listener.Conn) {
		if err := backend.ServeConn(ctx, c); err != nil {
			g.log.Warn("broker is not served any more", "listener", socket.Name(), "error", err)
		}
	})
}

// intake is the way in for clients that brokers hand over. It is shut before a listener is drained: what was acknowledged, or sent in the bare form, has
// been given to the server by then, and nothing is acknowledged after.
type intake struct {
	bare sync.WaitGroup // what may still bring some in the bare form: sockets that accept, and what they have accepted

	gate sync.RWMutex // held for reading while something comes in
	shut bool

	mu     sync.Mutex
	budget budget
}

func (i *intake) take(ln *listener.Listener, client *handoff.Client) (serve func(owned bool), err error) {
	i.gate.RLock()
	if i.shut {
		i.gate.RUnlock()
		return nil, &handoff.RefusedError{Sentinel: handoff.ErrRefused, Reason: handoff.ReasonStopped}
	}
	arrival, err := ln.Expect(client.Conn)
	if err != nil {
		i.gate.RUnlock()
		return nil, &handoff.RefusedError{Sentinel: handoff.ErrRefused, Reason: handoff.ReasonIdentity, Detail: err.Error()}
	}
	i.mu.Lock()
	i.budget.take(1)
	i.mu.Unlock()
	return func(owned bool) {
		defer i.gate.RUnlock()
		if owned {
			_ = arrival.Serve() // it closes what comes after the end of the drain
		} else {
			_ = arrival.Close()
		}
	}, nil
}

func (i *intake) credit() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return int(i.budget.credit())
}

// close shuts the way in, of a generation whose sockets are about to close. It waits for what is coming in: an ack, which takes a second at most, and what
// is queued in the bare form, but for that not longer than ctx.
func (i *intake) close(ctx context.Context) {
	taken := make(chan struct{})
	go func() { i.bare.Wait(); close(taken) }()
	select {
	case <-taken:
	case <-ctx.Done():
	}
	i.gate.Lock()
	defer i.gate.Unlock()
	i.shut = true
}
