package restart

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segue-go/segue/handoff"
)

// probation is a successor's way from ready to commit, and then its watch over the predecessor that drains. One goroutine
// owns it.
type probation struct {
	*Generation
	granted bool         // this generation may accept
	asked   bool         // for the commit
	silence *time.Timer  // until GRANT: when the predecessor's silence makes this generation accept beside it
	serving bool         // committed, or promoted by the predecessor's death
	mute    bool         // an answer could not be sent: none can
	healthy <-chan error // the end of probing; nil before GRANT and after
	adopter adopter
}

// errApprentice is why an uncommitted successor tells its predecessor to take over again.
var errApprentice = errors.New("left before the commit")

func (g *Generation) probationActor(ctx context.Context) (func() error, func(error)) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &probation{Generation: g, adopter: adopter{
		origins: g.movable, raw: g.raw, ledger: g.predecessor.ledger, budget: budget{measure: measureDescriptors},
		adopted: g.options.Observer.Adopted,
	}}
	return func() error { return p.run(ctx) }, cancel
}

// run says READY and answers the predecessor until the group ends. It returns before that only with an error that this
// generation cannot serve with.
func (p *probation) run(ctx context.Context) error {
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	incoming := receiveAll(reading, p.predecessor.session)
	if err := p.send(ctx, &handoff.Ready{
		Probation: uint32(p.options.Probation.Milliseconds()), Credit: p.adopter.budget.credit(),
	}); err != nil {
		return p.giveUp(err)
	}
	p.silence = time.NewTimer(p.options.patience())
	defer p.silence.Stop()
	for {
		select {
		case <-p.silence.C:
			p.acceptBeside()
		case in := <-incoming:
			p.silence.Stop()
			if in.err != nil {
				if err := p.sessionEnded(in.err); err != nil {
					return err
				}
			} else if ctx.Err() != nil && !p.serving {
				continue // giving up: not even COMMITTED changes that any more
			} else if ctx.Err() != nil {
				p.hearOut(ctx, in.message)
			} else if err := p.handle(ctx, in.message); err != nil && p.serving && ctx.Err() != nil {
				p.mute = true // an answer that could not be sent any more is no breach of the protocol
			} else if err != nil {
				if err := p.misled(err); err != nil {
					return err
				}
			}
			if p.predecessor.hasGone() {
				incoming = nil
			}
			if !p.granted && !p.serving && ctx.Err() == nil {
				p.silence.Reset(p.options.patience()) // until GRANT it may fall silent after any word, and perhaps has paused its listeners
			}
		case err := <-p.healthy:
			p.healthy = nil
			if err == nil {
				p.asked = true
				err = p.send(ctx, &handoff.Commit{})
			}
			if err != nil {
				return p.giveUp(err)
			}
		case <-ctx.Done():
			if p.serving {
				p.part(ctx, incoming)
			} else {
				_ = p.giveUp(fmt.Errorf("%w: %w", errApprentice, context.Cause(ctx)))
			}
			return nil
		}
	}
}

// handle acts on one message. Its errors are breaches of the protocol, or the predecessor's decision to roll back.
func (p *probation) handle(ctx context.Context, message handoff.Message) error {
	if ping, ok := message.(*handoff.Ping); ok {
		return p.answer(ctx, ping, p.adopter.budget.credit())
	}
	if p.serving {
		return p.handleServing(ctx, message)
	}
	switch message := message.(type) {
	case *handoff.Grant:
		if p.granted {
			return p.handleConnections(ctx, message)
		}
		p.log.Info("serving on probation", "generation", p.number, "probation", p.options.Probation)
		p.granted = true
		p.sockets.Resume()
		p.healthy = p.probe(ctx)
		return nil
	case *handoff.Committed:
		if !p.asked {
			return handoff.Unexpected("PING or GRANT", message)
		}
		p.commit()
		return nil
	case *handoff.Offer, *handoff.Counted:
		if !p.granted {
			return handoff.Unexpected("PING or GRANT", message)
		}
		return p.handleConnections(ctx, message)
	default:
		return refusal("PING, OFFER, GRANT, COUNTED or COMMITTED", message)
	}
}

// acceptBeside has this generation accept though its predecessor has not said that it does not. One that is ready and hears
// nothing has a predecessor that is stopped, or hangs, and perhaps nobody accepts. A connection that waits in the queue of a
// shared socket goes to one process only, so two that accept do no harm. Should the predecessor go on, so does the upgrade.
func (p *probation) acceptBeside() {
	p.log.Warn("predecessor is silent: accepting beside it", "generation", p.number, "predecessor", p.predecessor.pid,
		"silent", p.options.patience())
	p.sockets.Resume()
}

// commit makes this generation the serving one.
func (p *probation) commit() {
	p.serving = true
	p.serve()
}

// predecessorWent notes that an upgrade of this generation need not wait for the predecessor's drain any more.
func (p *probation) predecessorWent() {
	if !p.predecessor.hasGone() {
		close(p.predecessor.gone)
		_ = p.predecessor.session.Close()
	}
}

// sessionEnded is reached when nothing more can come from the predecessor. One that is alive never closes the session
// without ROLLBACK or BYE, so it is dead, and this generation is what is left to serve.
func (p *probation) sessionEnded(cause error) error {
	if !p.serving && !isGone(cause) {
		return p.giveUp(cause)
	}
	if isGone(cause) {
		p.adopter.settle()
		if err := p.adopter.grantAll(); err != nil {
			p.log.Warn("cannot adopt connections", "error", err)
		}
	} else {
		p.log.Warn("predecessor cannot be understood any more", "error", cause)
	}
	p.adopter.drop()
	if !p.serving {
		p.log.Warn("predecessor died: serving in its place", "generation", p.number, "predecessor", p.predecessor.pid)
		p.healthy = nil
		p.sockets.Resume()
		p.commit()
	}
	p.predecessorWent()
	return nil
}

// misled ends an uncommitted generation whose predecessor rolls back or breaks the protocol: it exits, and the predecessor
// serves. A committed one serves on without a word from its predecessor.
func (p *probation) misled(cause error) error {
	if !p.serving {
		return p.giveUp(cause)
	}
	p.log.Warn("predecessor broke the protocol", "error", cause)
	p.adopter.drop()
	p.predecessorWent()
	return nil
}

// part ends the conversation with a predecessor that still drains, because this generation stops. What was acknowledged is served here,
// for its GRANT is on its way, and nobody else would have it. The predecessor has to know that the commit was heard of, too: it takes
// an end of the session before that for a death, and serves on. After that it keeps the rest.
func (p *probation) part(ctx context.Context, incoming <-chan received) {
	patience := time.NewTimer(byeTimeout)
	defer patience.Stop()
	for late := false; !late && !p.predecessor.hasGone() && (len(p.adopter.pending) > 0 || p.adopter.ledger != nil); {
		select {
		case in := <-incoming:
			if in.err != nil {
				_ = p.sessionEnded(in.err) // nil for a generation that serves
				continue
			}
			p.hearOut(ctx, in.message)
		case <-patience.C:
			late = true
		}
	}
	p.adopter.drop()
	p.predecessorWent()
}

// hearOut acts on a message to a generation that stops. It takes no more connections.
func (p *probation) hearOut(ctx context.Context, message handoff.Message) {
	switch message := message.(type) {
	case *handoff.Ping:
		_ = p.answer(ctx, message, 0) // there is nothing that it could change any more
	case *handoff.Offer:
		_ = message.Close()
	default:
		if err := p.handleServing(ctx, message); err != nil {
			_ = p.misled(err) // nil for a generation that serves
		}
	}
}

// answer answers a PING. A generation that serves does so also when it is told to stop in that moment: see part.
func (p *probation) answer(ctx context.Context, ping *handoff.Ping, credit uint32) error {
	if p.mute {
		return nil
	}
	if p.serving {
		bounded, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), byeTimeout, handoff.ErrWouldBlock)
		defer cancel()
		ctx = bounded
	}
	err := p.send(ctx, &handoff.Pong{Number: ping.Number, Credit: credit})
	p.mute = err != nil
	return err
}

// giveUp stops accepting and tells the predecessor to take over again.
func (p *probation) giveUp(cause error) error {
	p.sockets.Pause()
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	reason := handoff.ReasonFor(cause)
	switch {
	case errors.Is(cause, ErrUnhealthy):
		reason = handoff.ReasonUnhealthy
	case errors.Is(cause, errApprentice):
		reason = handoff.ReasonStopped
	}
	_ = p.predecessor.session.Send(ctx, &handoff.Rollback{Reason: reason, Detail: cause.Error()}) // it sees our end, too
	return cause
}

// send sends, and leaves it to the receiving side to find out that the predecessor is gone.
func (p *probation) send(ctx context.Context, message handoff.Message) error {
	if err := p.predecessor.session.Send(ctx, message); err != nil && !isGone(err) {
		return err
	}
	return nil
}

// Healthy is asked at these distances.
const (
	probesPerProbation = 10
	minProbeInterval   = 20 * time.Millisecond
	maxProbeInterval   = time.Second
)

// probe asks Options.Healthy until probation has passed, at least once, and tells its verdict once.
func (g *Generation) probe(ctx context.Context) <-chan error {
	verdict := make(chan error, 1)
	go func() { verdict <- g.probeUntilProbationEnds(ctx) }()
	return verdict
}

func (g *Generation) probeUntilProbationEnds(ctx context.Context) error {
	healthy := g.options.Healthy
	if healthy == nil {
		healthy = func(context.Context) error { return nil }
	}
	ctx, cancel := context.WithTimeoutCause(ctx, g.options.Probation+g.options.UpgradeTimeout, ErrUpgradeTimeout)
	defer cancel()
	passed := time.NewTimer(g.options.Probation)
	defer passed.Stop()
	next := time.NewTicker(min(max(g.options.Probation/probesPerProbation, minProbeInterval), maxProbeInterval))
	defer next.Stop()
	for last := g.options.Probation == 0; ; {
		if err := healthy(ctx); err != nil {
			return fmt.Errorf("%w: %w", ErrUnhealthy, err)
		}
		if last {
			return nil
		}
		select {
		case <-next.C:
		case <-passed.C:
			last = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
