package restart

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segue-go/segue/handoff"
)

// confirmTimeout is how long a successor may take from COMMITTED until it has shown that it knows.
const confirmTimeout = 5 * time.Second

// attempt is one upgrade, seen from the predecessor: it hands over to a candidate, and if anything fails before the commit
// makes things as they were. It is used by one goroutine.
type attempt struct {
	*Generation
	record    *record
	session   *handoff.Session
	incoming  <-chan received // from READY on
	candidate candidate
	hello     time.Duration // how long the candidate may take to show the token
	wants     time.Duration // how long it wants to be on probation
	mover     *mover        // nil if it takes no connections
	counting  *counting     // nil if it has no counters
	granted   bool          // the candidate may accept, and this generation's listeners are paused
	doubted   bool          // it is granted and silent: this generation accepts as well
}

// run returns nil when the candidate has taken over for good. Otherwise there is no candidate any more. The candidate must
// show the token that is expected, out of tokens.
func (a *attempt) run(ctx context.Context, tokens *handoff.TokenStore, expected handoff.Token) error {
	defer a.settle()
	started := time.Now()
	alive, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	go func() {
		select {
		case <-a.candidate.ended():
			if err := a.candidate.end(); err != nil {
				abort(err)
			}
		case <-alive.Done():
		}
	}()
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	err := a.handOver(alive, tokens, expected)
	if err == nil {
		a.ready()
		a.incoming = receiveAll(reading, a.session)
		err = a.probation(alive)
	}
	if err == nil {
		// The decision is made and told, and the end of ctx does not change it. But if the successor dies before it has
		// heard of it, there is nobody but this process to go on.
		confirming, cancel := context.WithTimeoutCause(context.Background(), confirmTimeout,
			fmt.Errorf("%w: commit not confirmed after %v", ErrUpgradeTimeout, confirmTimeout))
		defer cancel()
		err = a.candidate.confirm(confirming, a.session, a.incoming, func(message handoff.Message) error {
			return a.moveOn(confirming, message)
		})
	}
	if err != nil {
		stop()
		return a.rollBack(err)
	}
	a.log.Info("handed over", "generation", a.number, "successor", a.candidate.pid(), "took", time.Since(started))
	a.candidate.release()
	a.successor = &successor{
		session: a.session, incoming: a.incoming, stopReading: stop, mover: a.mover, counting: a.counting,
		startedHere: a.candidate.startedHere(),
	}
	a.counting.start()
	return nil
}

// handOver goes through the protocol from HELLO to READY. It ends with ctx, which ends when the successor dies.
func (a *attempt) handOver(ctx context.Context, tokens *handoff.TokenStore, expected handoff.Token) error {
	timeout := a.options.UpgradeTimeout
	starting, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w: not ready after %v", ErrUpgradeTimeout, timeout))
	defer cancel()
	greeting, cancel := context.WithTimeoutCause(starting, a.hello, fmt.Errorf("%w: no HELLO after %v", ErrUpgradeTimeout, a.hello))
	defer cancel()
	hello, err := a.session.Admit(greeting, tokens, expected, a.number+1)
	if err != nil {
		return err
	}
	if err := a.candidate.greeted(hello); err != nil {
		return err
	}
	if slices.Contains(hello.Capabilities, handoff.CapabilityCounters) {
		a.counting = newCounting(&a.counters, a.session, a.log)
	}
	if a.mover = a.newMover(a.session, hello.Capabilities); a.mover != nil {
		a.mover.counting = a.counting
	}
	if err := a.offer(starting, hello.Capabilities); err != nil {
		return err
	}
	message, err := a.session.Receive(starting)
	if err != nil {
		return err
	}
	ready, ok := message.(*handoff.Ready)
	if !ok {
		return refusal("READY", message)
	}
	a.wants = min(time.Duration(ready.Probation)*time.Millisecond, MaxProbation)
	if a.mover != nil && a.mover.escrow != nil {
		a.mover.credit = int(min(ready.Credit, 1<<30))
	}
	return nil
}

// offer sends what the successor inherits, and waits for its answer to each.
func (a *attempt) offer(ctx context.Context, capabilities []string) error {
	states, err := a.encodeStates(ctx, capabilities) // before there are descriptors, which nobody would close if that does not end
	if err != nil {
		return err
	}
	entries, err := a.entries(capabilities)
	if err != nil {
		return err
	}
	defer closeEntries(entries)
	entries = append(entries, states...)
	offers := handoff.Offers(entries)
	tokens := &handoff.TokenStore{}
	for _, offer := range offers {
		if offer.Token, err = tokens.Issue(); err != nil {
			return err
		}
		err := a.session.Send(ctx, offer)
		tokens.Revoke(offer.Token) // the successor consumes it, not this side
		if err != nil {
			return err
		}
		message, err := a.session.Receive(ctx)
		if err != nil {
			return err
		}
		ack, ok := message.(*handoff.Ack)
		if !ok {
			return refusal("ACK", message)
		}
		if err := ack.Check(offer); err != nil {
			return err
		}
		for i, result := range ack.Results {
			if !result.Accepted {
				a.log.Warn("successor refused what was offered", "kind", offer.Entries[i].Kind, "name", offer.Entries[i].Name,
					"error", &handoff.RefusedError{Sentinel: handoff.ErrRefused, Reason: result.Reason, Detail: result.Detail})
			}
		}
	}
	return nil
}

// encodeStates asks the service for its states.
func (a *attempt) encodeStates(ctx context.Context, capabilities []string) ([]handoff.Entry, error) {
	if !slices.Contains(capabilities, handoff.CapabilityState) {
		return nil, nil
	}
	var states []handoff.Entry
	err := a.bounded(ctx, func(context.Context) (err error) {
		states, err = a.states.entries(slices.Contains(capabilities, handoff.CapabilityParts))
		return err
	})
	if err != nil {
		return nil, err // states may still be written to
	}
	return states, nil
}

// probation goes on from READY to COMMITTED: it pings the successor, passes the listeners on with its first answer, then the
// connections, and decides when it asks for the commit.
func (a *attempt) probation(ctx context.Context) error {
	timeout := a.wants + a.options.UpgradeTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w: no commit after %v", ErrUpgradeTimeout, timeout))
	defer cancel()
	pulse, err := a.newPulse(ctx)
	if err != nil {
		return err
	}
	defer pulse.stop()
	tick := time.NewTicker(moveTick)
	defer tick.Stop()
	var departing <-chan struct{}
	for {
		select {
		case now := <-pulse.timer.C:
			err = a.beat(ctx, pulse, now)
		case received := <-a.incoming:
			if received.err != nil {
				return received.err
			}
			if commit, ok := received.message.(*handoff.Commit); ok {
				if !a.granted {
					return handoff.Unexpected("PONG", commit)
				}
				return a.session.Send(ctx, &handoff.Committed{})
			}
			err = a.handle(ctx, pulse, received.message)
			if a.granted && a.movesNow() {
				departing = a.mover.departures.wake
			}
		case <-departing:
			err = a.mover.goOn(ctx)
		case now := <-tick.C:
			if departing != nil {
				err = a.mover.tick(ctx, now)
			}
		case <-ctx.Done():
			return a.lastWords(context.Cause(ctx))
		}
		if err != nil {
			return err
		}
	}
}

// handle acts on what a successor on probation says, but for COMMIT.
func (a *attempt) handle(ctx context.Context, pulse *pulse, message handoff.Message) error {
	switch message := message.(type) {
	case *handoff.Pong:
		if err := pulse.answered(message); err != nil {
			return err
		}
		if err := a.grant(ctx); err != nil || !a.movesNow() {
			return err
		}
		return a.mover.credited(ctx, message.Credit)
	default:
		return a.moveOn(ctx, message)
	}
}

// moveOn acts on what a successor says of connections.
func (a *attempt) moveOn(ctx context.Context, message handoff.Message) error {
	ack, ok := message.(*handoff.Ack)
	if !ok || !a.movesNow() {
		return refusal("PONG, ACK or COMMIT", message)
	}
	return a.mover.acked(ctx, ack)
}

// movesNow reports whether connections move during the probation.
func (a *attempt) movesNow() bool { return a.mover != nil && a.mover.escrow != nil }

// beat is called when the successor's pulse has something due.
func (a *attempt) beat(ctx context.Context, pulse *pulse, now time.Time) error {
	doubtful, err := pulse.beat(ctx, now)
	if err != nil || !doubtful || !a.granted || a.doubted {
		return err
	}
	// It may be stopped, or only slow; until that is known, somebody is to accept. Both may: what waits in the queue of the
	// shared socket goes to one of them.
	a.log.Warn("successor is silent: accepting beside it", "generation", a.number, "successor", a.candidate.pid())
	a.doubted = true
	if a.movesNow() {
		a.mover.suspend()
	}
	a.sockets.Resume()
	return nil
}

// lastWords finds out whether a successor that has exited had said why before.
func (a *attempt) lastWords(cause error) error {
	if !errors.Is(cause, ErrSuccessorExited) {
		return cause
	}
	grace := time.NewTimer(exitGrace)
	defer grace.Stop()
	for {
		select {
		case received := <-a.incoming:
			if received.err != nil {
				return cause
			}
			if rollback, ok := received.message.(*handoff.Rollback); ok {
				return refusal("PONG or COMMIT", rollback)
			}
		case <-grace.C:
			return cause
		}
	}
}

// grant lets the successor accept, once this generation does not any more, and has connections move.
func (a *attempt) grant(ctx context.Context) error {
	switch {
	case a.granted && !a.doubted:
		return nil
	case a.granted:
		a.doubted = false
		a.sockets.Pause()
	default:
		a.granted = true
		a.sockets.Pause()
		a.log.Info("successor is ready and serves on probation", "generation", a.number, "successor", a.candidate.pid())
		if err := a.session.Send(ctx, &handoff.Grant{}); err != nil {
			return err
		}
	}
	if a.movesNow() {
		return a.mover.begin(ctx)
	}
	return nil
}
