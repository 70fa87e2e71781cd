package restart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/oklog/run"
)

// Run runs the services and actors of this generation until its work is done: nil after it handed over to a successor,
// or was stopped by a signal or by the end of ctx, and has drained; an error when a service or actor failed, or when a
// predecessor took over again (handoff.ErrRolledBack). Call it once.
func (g *Generation) Run(ctx context.Context) error {
	if !g.running.CompareAndSwap(false, true) {
		return ErrRunTwice
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	draining, drained := context.WithCancel(context.Background())
	defer drained()
	go g.hearStops(draining)

	g.sockets.CloseUnclaimed()
	g.states.forgetUnclaimed(g.log)

	var group run.Group
	group.Add(g.stopActor(ctx))
	group.Add(g.upgradeActor(ctx))
	group.Add(g.straysActor())
	if g.predecessor != nil {
		group.Add(g.probationActor(ctx))
	} else {
		g.serve()
	}
	for _, actor := range g.actors {
		group.Add(actor.execute, actor.interrupt)
	}
	return g.finish(group.Run())
}

// serve makes this generation the one that serves and that is to be signalled.
func (g *Generation) serve() {
	// First, because the predecessor may exit as soon as it knows, and a service manager would take that for the end.
	g.announce()
	if err := g.spawner.ready(); err != nil {
		g.log.Warn("cannot tell predecessor that the upgrade is complete", "error", err)
	}
	if err := g.door.open(); err != nil {
		g.log.Error("cannot be taken over", "error", err)
	}
	close(g.committed)
	g.log.Info("serving", "generation", g.number)
}

// announce tells the outside whom to signal.
func (g *Generation) announce() {
	if err := g.pidFile.write(); err != nil {
		g.log.Error("cannot write PID file", "error", err)
	}
	notifyServing(g.log)
}

// mover returns what hands this leaving generation's connections over, nil if nothing does.
func (g *Generation) mover() *mover {
	if g.successor == nil {
		return nil
	}
	return g.successor.mover
}

// leave is the beginning of the end: from here this generation takes on nothing new.
func (g *Generation) leave() {
	g.awaitParting()
	close(g.leaving)
	g.raw.leave()
	select {
	case <-g.committed:
	default:
		if err := g.sockets.Abandon(); err != nil { // they are the predecessor's
			g.log.Warn("cannot close sockets", "error", err)
		}
		return
	}
	if g.successor != nil {
		g.door.close(false)
		_ = g.sockets.Leave() // they are the successor's
		if g.stopsAll.Load() && g.successor.startedHere {
			g.successor.stop() // the signal came too late to roll back
		} else if mover := g.mover(); mover != nil {
			go mover.run(g.moving, g.successor.incoming)
		}
		return
	}
	g.door.close(true)
	notifyStopping(g.log)
	if err := g.sockets.Retire(); err != nil {
		g.log.Warn("cannot close sockets", "error", err)
	}
}

// awaitParting returns when this generation, if it serves, takes no connection from its predecessor any more: what comes after that would
// find nobody who serves it. See probation.part.
func (g *Generation) awaitParting() {
	if g.predecessor == nil {
		return
	}
	select {
	case <-g.committed:
		<-g.predecessor.gone // if there is a successor, since before its upgrade began
	default:
	}
}

// finish is what is left to do when all actors have returned.
func (g *Generation) finish(reason error) error {
	signal.Stop(g.stop)
	defer g.spawner.stop()
	_ = g.sockets.Close() // what leave has left open: files, and packet sockets that could still be written
	g.stopMoving()
	if g.successor != nil {
		if mover := g.mover(); mover != nil {
			<-mover.done
			g.log.Info("connections moved", "generation", g.number, "moved", mover.tally.adopted, "moving", mover.tally.took(),
				"pause_p50", mover.tally.pauses.quantile(.5), "pause_p99", mover.tally.pauses.quantile(.99))
		}
		g.drained()
		// SIGHUP stays caught: one that comes between here and the end of the process must not kill it.
		g.successor.bye(g.upgradeWanted())
	} else {
		signal.Stop(g.hangup)
		if err := g.pidFile.remove(); err != nil {
			g.log.Warn("cannot remove PID file", "error", err)
		}
	}
	if g.predecessor != nil {
		_ = g.predecessor.session.Close()
	}
	// A service whose listener was closed by leave may be the first to return, without an error.
	if reason != nil && !errors.Is(reason, errHandedOver) && !errors.Is(reason, errStopped) {
		return fmt.Errorf("generation %d: %w", g.number, reason)
	}
	g.log.Info("done", "generation", g.number, "handed over", g.successor != nil)
	return nil
}

// wantUpgrade asks for an upgrade as SIGHUP does.
func (g *Generation) wantUpgrade() {
	select {
	case g.hangup <- syscall.SIGHUP:
	default: // one is asked for already
	}
}

// wantStop asks for the end because the predecessor passes a stop signal on. It is no signal: this process may get its own as well, and two
// of those mean more.
func (g *Generation) wantStop() {
	select {
	case g.bidden <- struct{}{}:
	default: // it is asked for already
	}
}

// upgradeWanted reports whether somebody asked this leaving generation for an upgrade that its successor owes now.
func (g *Generation) upgradeWanted() bool {
	select {
	case <-g.hangup:
		return true
	default:
		return g.passedOn.Load()
	}
}

// stopActor ends the group on the first stop signal, when the predecessor passes one on, or at the end of ctx.
func (g *Generation) stopActor(ctx context.Context) (func() error, func(error)) {
	ctx, cancel := context.WithCancel(ctx)
	return func() error {
		select {
		case <-g.signalled:
		case <-g.bidden:
			g.log.Info("stopping", "signal", "passed on by the predecessor")
		case <-ctx.Done():
		}
		return errStopped
	}, func(error) { cancel() }
}

// hearStops acts on the stop signals of this process, until ctx ends. It alone reads them, so that it counts them all: the first one ends
// the group, the second one the drain. A first one that arrives while draining for another reason does nothing: after a
// handover, and after a BYE that passes a stop on, service managers send it to every process of the service, and after the end of Run's
// context it may be why that ended.
func (g *Generation) hearStops(ctx context.Context) {
	var received os.Signal
	select {
	case received = <-g.stop:
	case <-ctx.Done():
		return
	}
	select {
	case <-g.leaving:
		g.log.Info("draining already: another one ends that", "signal", received.String())
	default:
		// Once the file names a successor, the signal is for this process alone. It is looked at now and not at the commit, because
		// a manager may stop the old process as soon as it sees that the new one serves, which is before this one knows. Where no
		// file tells, a signal ends whom it is sent to: too many processes are better than none.
		g.stopsAll.Store(g.pidFile.isOwn())
		g.log.Info("stopping", "signal", received.String())
		close(g.signalled)
	}
	select {
	case received = <-g.stop:
		g.log.Info("not waiting for connections any more", "signal", received.String())
		close(g.hurry)
	case <-ctx.Done():
	}
}

// drainContext ends when this generation's patience with its connections does.
func (g *Generation) drainContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), g.options.Drain)
	go func() {
		select {
		case <-g.hurry:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
