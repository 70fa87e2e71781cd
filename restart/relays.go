package restart

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/segue-go/segue/listener"
)

// RelayOptions is what a proxy may want otherwise. The zero value works.
type RelayOptions struct {
	// IdleTimeout is after how long without a byte in either direction a pair is closed. 0 means never. For how long nothing has
	// passed travels with the pair; the timeout is that of the generation that has it.
	IdleTimeout time.Duration

	// Ended is told of each pair that has ended in this generation, before it is closed: err is what listener.Relay.Run has returned. It is
	// called on the goroutine of the pair. Pairs that were handed on have not ended.
	Ended func(a, b *listener.Conn, relay *listener.Relay, err error)
}

// Relays are pairs of connections that are passed on to one another, a client's and the one to its backend, and that move to the next
// generation as they are: with bytes under way both ways, one of them half closed, or blocked because a reader is slow.
type Relays struct {
	gen     *Generation
	kind    string
	options RelayOptions
	log     *slog.Logger
}

// What a pair has under way in both directions travels in one Detach, with the state of the relay.
const _ = uint(MaxConnState - 2*listener.RelayChunk - 1<<10)

// Relays makes relays whose pairs are handed on under that kind: it is their Adopt, and comes before Run. The successor has to have
// Relays of the same kind, too.
//
// Like all raw connections they move after the commit, each pair as soon as it is stopped: a rollback finds them where they were. What
// the successor does not take goes on here until the end of Options.Drain.
func (g *Generation) Relays(kind string, options RelayOptions) *Relays {
	r := &Relays{gen: g, kind: kind, options: options, log: g.log}
	g.AdoptAll(kind, func(ctx context.Context, conns []*listener.Conn, state []byte) {
		if len(conns) != 2 {
			r.log.Error("cannot go on with a relay", "kind", kind, "connections", len(conns), "want", 2)
			return
		}
		relay, err := listener.RestoreRelay(conns[0], conns[1], state)
		if err != nil {
			r.log.Error("cannot go on with a relay", "kind", kind, "error", err)
			return
		}
		r.serve(ctx, conns[0], conns[1], relay)
	})
	return r
}

// Serve passes a and b on to one another until both directions have ended, one of them has failed, or they are the successor's. It owns
// them in every case: both are closed, unless they were handed on. What was given back to them with Conn.Unread goes first.
//
// Ctx is that of a handler of Conns or Adopt, or the generation's own (Generation.Context): the pair is handed on when it ends.
func (r *Relays) Serve(ctx context.Context, a, b *listener.Conn) {
	r.serve(ctx, a, b, listener.NewRelay(a, b))
}

func (r *Relays) serve(ctx context.Context, a, b *listener.Conn, relay *listener.Relay) {
	defer closeConns([]*listener.Conn{a, b})
	relay.IdleTimeout = r.options.IdleTimeout
	err := relay.Run(ctx)
	for errors.Is(err, listener.ErrInterrupted) {
		if ctx.Err() != nil {
			why := r.gen.Detach(r.kind, relay.State(), a, b)
			if why == nil {
				return
			}
			r.log.Debug("relay stays", "kind", r.kind, "error", why)
			ctx = context.WithoutCancel(ctx) // until the end of the drain
		}
		err = relay.Run(ctx)
	}
	if r.options.Ended != nil {
		r.options.Ended(a, b, relay, err)
	}
}
