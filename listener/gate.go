package listener

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// gate decides who may ask the kernel for a connection or a datagram. It is open until somebody shuts it.
//
// Shutting it sets the inner read deadline into the past. That makes a blocked accept or read return, and a
// later one fail before it asks the kernel (internal/poll: prepareRead comes first). The deadline is a matter of this
// process's runtime: the socket, which another process may share, does not notice.
type gate struct {
	setDeadline func(time.Time) error // of the inner socket's reading side

	mu       sync.Mutex
	shut     cause
	closed   bool
	ended    bool
	inside   int       // goroutines between enter and leave
	pauses   uint64    // how often the gate went from open to shut
	deadline time.Time // the user's own read deadline; zero if there is none
	change   chan struct{}
}

// cause is why a gate is shut. Each is opened by whoever shut it, so a listener that its owner has paused stays
// paused when its Set is paused and resumed.
type cause uint8

const (
	byOwner cause = 1 << iota
	bySet
)

// past is a deadline that has passed. (The zero time would mean none.)
var past = time.Unix(1, 0)

// enter waits until the gate is open, and lets the caller go to the kernel until it calls leave with the pass it got here.
// It fails with os.ErrDeadlineExceeded when the user's deadline passes first, and with net.ErrClosed once the gate was shut for good. A closed gate lets everybody through: the closed
// inner socket has the right error for them.
func (g *gate) enter() (pass uint64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.shut != 0 && !g.closed {
		if g.ended {
			return 0, net.ErrClosed
		}
		if !g.deadline.IsZero() && !time.Now().Before(g.deadline) {
			return 0, os.ErrDeadlineExceeded
		}
		g.waitChange()
	}
	g.inside++
	return g.pauses, nil
}

// leave ends what enter began. It reports whether err, which the kernel side returned, was the work of a pause, and so
// whether to enter again. If the gate was shut meanwhile and the user's deadline passed too, entering again finds out.
func (g *gate) leave(pass uint64, err error) (again bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.shut != 0 {
		g.changed()
	}
	return err != nil && g.pauses != pass && errors.Is(err, os.ErrDeadlineExceeded)
}

// close shuts or opens nothing any more, and sends those who wait to the inner socket, which must be closed already.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.changed()
}

// end shuts the gate for good, and returns when nobody is inside. The inner socket may stay open.
func (g *gate) end() {
	g.shutFor(bySet)
	g.mu.Lock()
	g.ended = true
	g.changed()
	g.mu.Unlock()
	g.await()
}

// shutFor shuts the gate for a cause. Callers may still be inside: see await.
func (g *gate) shutFor(why cause) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == 0 {
		g.pauses++
		// Under the lock: so that the deadline is past exactly while the gate is shut. An error says that the socket is closed.
		_ = g.setDeadline(past)
	}
	g.shut |= why
}

// openFor takes a cause away and opens the gate if none is left.
func (g *gate) openFor(why cause) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == 0 || g.ended {
		return
	}
	if g.shut &^= why; g.shut == 0 {
		_ = g.setDeadline(g.deadline)
		g.changed()
	}
}

// await returns when nobody is inside, or when the gate was opened again. The deadline makes those inside come out at once:
// none waits for the network.
func (g *gate) await() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.shut != 0 && g.inside > 0 {
		g.waitChange()
	}
}

// setUserDeadline sets the deadline that holds while the gate is open, and for those who wait at it while it is shut.
func (g *gate) setUserDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = t
	if g.shut != 0 && !g.closed {
		g.changed()
		return nil
	}
	return g.setDeadline(t)
}

// changed wakes all that wait. The caller holds mu.
func (g *gate) changed() {
	if g.change != nil {
		close(g.change)
		g.change = nil
	}
}

// waitChange lets go of mu until something changes or the user's deadline passes.
func (g *gate) waitChange() {
	if g.change == nil {
		g.change = make(chan struct{})
	}
	change, deadline := g.change, g.deadline
	g.mu.Unlock()
	defer g.mu.Lock()
	if deadline.IsZero() {
		<-change
		return
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-change:
	case <-timer.C:
	}
}
