package restart

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/segue-go/segue/handoff"
)

// upgradeRequest is one caller's wish for an upgrade.
type upgradeRequest struct {
	ctx    context.Context
	result chan *Report
}

// Upgrade replaces this generation by a successor. It returns no error once the successor has committed: this generation then
// drains, and Run returns. Otherwise this generation serves on as before, and the error says why: ErrPreflight, ErrSpawn,
// ErrSuccessorExited, ErrUpgradeTimeout, ErrPingTimeout, ErrUnhealthy, the errors of package handoff if the successor
// broke the protocol, or the cause of ctx, whose end aborts the upgrade; with ErrRolledBack if the successor had begun to serve.
//
// One upgrade runs at a time. A further call waits its turn, as does one before Run, in a generation that is not committed
// yet, or whose predecessor still drains; if ctx ends meanwhile it fails with ErrUpgradeInProgress. If this generation hands
// over meanwhile, it passes the request on to its successor and fails with ErrLeaving.
//
// The report is that of the commit, or of the failure; nil if the upgrade did not get its turn. Connections go on moving and ending
// after the commit: Observer.Drained gets the final one.
func (g *Generation) Upgrade(ctx context.Context) (*Report, error) {
	request := &upgradeRequest{ctx: ctx, result: make(chan *Report, 1)}
	select {
	case g.requests <- request:
		report := <-request.result
		return report, report.Err
	case <-g.leaving:
		g.passedOn.Store(true)
		return nil, ErrLeaving
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUpgradeInProgress, context.Cause(ctx))
	}
}

// upgradeActor is the one goroutine that upgrades. When it ends, this generation leaves: it alone knows whether there is
// a successor that has the sockets.
func (g *Generation) upgradeActor(ctx context.Context) (func() error, func(error)) {
	ctx, cancel := context.WithCancelCause(ctx)
	execute := func() error {
		defer g.leave()
		select {
		case <-g.committed:
		case <-ctx.Done():
			return nil
		}
		if g.door.listener != nil {
			go g.door.receive(ctx, g.door.listener)
		}
		for {
			select {
			case <-g.hangup:
				g.recorded(func(r *record) error { return g.upgradeFor(ctx, ctx, r) })
			case request := <-g.requests:
				request.result <- g.recorded(func(r *record) error { return g.upgradeFor(ctx, request.ctx, r) })
			case visitor := <-g.door.visitors:
				g.recorded(func(r *record) error { return g.handOverTo(ctx, visitor, r) })
			case <-ctx.Done():
				return nil
			}
			if g.record != nil {
				return errHandedOver
			}
		}
	}
	return execute, func(error) { cancel(ErrLeaving) }
}

// upgradeFor upgrades as long as both the generation and the caller want it.
func (g *Generation) upgradeFor(group, caller context.Context, r *record) error {
	ctx, cancel := context.WithCancelCause(group)
	defer cancel(nil)
	defer context.AfterFunc(caller, func() { cancel(context.Cause(caller)) })()
	if err := errors.Join(context.Cause(group), context.Cause(caller)); err != nil {
		return err
	}
	if err := g.awaitPredecessor(ctx); err != nil {
		return err
	}
	if err := g.preflight(ctx); err != nil {
		return err
	}
	if err := g.spawner.check(); err != nil {
		return err
	}
	tokens := &handoff.TokenStore{TTL: g.options.UpgradeTimeout}
	token, err := tokens.Issue()
	if err != nil {
		return err
	}
	r.enter(&r.report.Starting)
	session, candidate, err := g.spawnOffspring(token)
	if err != nil {
		return err
	}
	err = (&attempt{Generation: g, record: r, session: session, candidate: candidate, hello: g.options.UpgradeTimeout}).run(ctx, tokens, token)
	if err != nil {
		g.afterFailure()
	}
	return err
}

// afterFailure puts right what a failed attempt may have left.
func (g *Generation) afterFailure() {
	g.announce() // a successor that had committed may have said that it is the one
	// tableflip leaves its child's ends of two pipes to the garbage collector (child.go, startChild). After a success they
	// end with this process; after a failure they would stay for as long as the service is idle.
	runtime.GC()
}

// awaitPredecessor waits until the process that handed over to this one has drained and gone.
func (g *Generation) awaitPredecessor(ctx context.Context) error {
	if g.predecessor == nil {
		return nil
	}
	if !g.predecessor.hasGone() {
		g.log.Info("upgrade waits until the predecessor has drained", "predecessor", g.predecessor.pid)
	}
	patience, cancel := context.WithTimeoutCause(ctx, g.options.Drain+fenceTimeout, ErrPredecessorDraining)
	defer cancel()
	select {
	case <-g.predecessor.gone:
	case <-patience.Done():
		return fmt.Errorf("process %d: %w", g.predecessor.pid, context.Cause(patience))
	}
	if err := g.spawner.waitPredecessor(patience); patience.Err() != nil {
		return fmt.Errorf("process %d: %w", g.predecessor.pid, context.Cause(patience))
	} else if err != nil {
		g.log.Warn("predecessor did not end as it should", "error", err)
	}
	return nil
}

// preflight asks Options.Preflight.
func (g *Generation) preflight(ctx context.Context) error {
	if g.options.Preflight == nil {
		return nil
	}
	if err := g.bounded(ctx, g.options.Preflight); err != nil {
		return fmt.Errorf("%w: %w", ErrPreflight, err)
	}
	return nil
}

// bounded calls a function of the user's, and does not wait for it longer than ctx and Options.UpgradeTimeout allow: neither a
// stop signal nor the next upgrade is to depend on it.
func (g *Generation) bounded(ctx context.Context, f func(context.Context) error) error {
	timeout := g.options.UpgradeTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w: no answer after %v", ErrUpgradeTimeout, timeout))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- g.recovered(ctx, f) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// recovered calls f. A panic in what an upgrade asks of the service ends the upgrade, not the generation that serves.
func (g *Generation) recovered(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			g.log.Error("an upgrade made the service panic", "panic", value, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", ErrPanicked, value)
		}
	}()
	return f(ctx)
}
