package restart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/listener"
)

const (
	// moveWindow is how many offers of connections may be unanswered.
	moveWindow = 4
	// ackTimeout is how long the successor may take to answer one.
	ackTimeout = 5 * time.Second
	// moveTimeout is how long a message to the successor may take to be written.
	moveTimeout = 5 * time.Second
)

// errMove says that no connection can be moved any more; those that are left are drained.
var errMove = errors.New("successor takes no connections")

// moving is a connection on its way to the successor.
type moving struct {
	from *listener.Listener
	*listener.Detached
}

// takeBack lets this generation's server go on with it.
func (m moving) takeBack() error { return m.from.Adopt(m.Detached) }

// mover hands connections to the successor, after the commit, for as long as this generation drains. One goroutine, run, owns
// the session and what is under way; others put in what comes to a boundary.
//
// Ownership passes with GRANT: the successor does nothing with what it has acknowledged before, and this side does nothing
// with it after. What is not granted comes back to this side's server.
type mover struct {
	session  *handoff.Session
	incoming <-chan received
	log      *slog.Logger

	mu      sync.Mutex
	queue   []moving
	back    []moving      // refused; only run's
	pending int           // in the queue or under way
	empty   chan struct{} // made by who waits for pending == 0, closed then
	over    bool          // nothing is taken any more
	moved   int           // to be read after done
	wake    chan struct{} // has room for one: there is something in the queue

	broken chan struct{} // closed: over
	done   chan struct{} // closed: run has returned
}

func newMover(session *handoff.Session, incoming <-chan received, log *slog.Logger) *mover {
	return &mover{session: session, incoming: incoming, log: log, wake: make(chan struct{}, 1), broken: make(chan struct{}), done: make(chan struct{})}
}

// put takes a connection over, to move it or to give it back. It does not block.
func (m *mover) put(c moving) {
	m.mu.Lock()
	if m.over {
		m.mu.Unlock()
		m.giveBack(c)
		return
	}
	m.queue = append(m.queue, c)
	m.pending++
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take returns up to n connections from the queue.
func (m *mover) take(n int) []moving {
	m.mu.Lock()
	defer m.mu.Unlock()
	n = min(n, len(m.queue))
	batch := m.queue[:n:n]
	m.queue = m.queue[n:]
	return batch
}

// settle notes that n connections are under way no more.
func (m *mover) settle(n, moved int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moved += moved
	if m.pending -= n; m.pending == 0 && m.empty != nil {
		close(m.empty)
		m.empty = nil
	}
}

// wait returns when nothing is under way, or ctx ends.
func (m *mover) wait(ctx context.Context) error {
	m.mu.Lock()
	if m.pending == 0 {
		m.mu.Unlock()
		return nil
	}
	if m.empty == nil {
		m.empty = make(chan struct{})
	}
	empty := m.empty
	m.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *mover) giveBack(c moving) {
	if err := c.takeBack(); err != nil {
		m.log.Warn("connection could neither be moved nor served on", "error", err)
	}
}

// batch is an offer that was not answered yet.
type batch struct {
	offer       *handoff.Offer
	connections []moving
	late        time.Time
}

// run moves until ctx ends or the successor takes no more. Then it gives back what is not the successor's.
func (m *mover) run(ctx context.Context) {
	defer close(m.done)
	tokens := &handoff.TokenStore{}
	underWay := make(map[uint64]*batch)
	var next uint64
	late := time.NewTicker(ackTimeout / 5)
	defer late.Stop()
	var err error
	for err == nil {
		for len(underWay) < moveWindow && err == nil {
			connections := m.take(handoff.MaxDescriptors)
			if len(connections) == 0 {
				break
			}
			next++
			b := &batch{connections: connections, late: time.Now().Add(ackTimeout)}
			underWay[next] = b
			err = m.offer(ctx, b, next, tokens)
		}
		if err != nil {
			break
		}
		select {
		case <-m.wake:
		case in := <-m.incoming:
			err = m.answer(ctx, in, underWay)
		case now := <-late.C:
			for _, b := range underWay {
				if now.After(b.late) {
					err = fmt.Errorf("%w: no answer to offer %d after %v", errMove, b.offer.ID, ackTimeout)
				}
			}
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	m.finish(err, underWay)
}

// offer sends one batch.
func (m *mover) offer(ctx context.Context, b *batch, id uint64, tokens *handoff.TokenStore) error {
	b.offer = &handoff.Offer{ID: id, Count: len(b.connections)}
	for i, c := range b.connections {
		entry, err := connectionEntry(c.from.Name(), c.Detached)
		if err != nil {
			return err
		}
		entry.ID, entry.Described = uint64(i+1), true
		b.offer.Entries = append(b.offer.Entries, entry)
	}
	var err error
	if b.offer.Token, err = tokens.Issue(); err != nil {
		return err
	}
	err = m.send(ctx, b.offer)
	tokens.Revoke(b.offer.Token) // the successor consumes it, not this side
	return err
}

func (m *mover) send(ctx context.Context, message handoff.Message) error {
	ctx, cancel := context.WithTimeoutCause(ctx, moveTimeout, errMove)
	defer cancel()
	return m.session.Send(ctx, message)
}

// answer acts on what the successor says.
func (m *mover) answer(ctx context.Context, in received, underWay map[uint64]*batch) error {
	if in.err != nil {
		return fmt.Errorf("%w: %w", errMove, in.err)
	}
	switch message := in.message.(type) {
	case *handoff.Pong:
		return nil // to a ping from before the commit
	case *handoff.Ack:
		b, known := underWay[message.Offer]
		if !known {
			return handoff.Unexpected("ACK of an offer under way", message)
		}
		if err := message.Check(b.offer); err != nil {
			return err
		}
		delete(underWay, message.Offer)
		return m.grant(ctx, b, message)
	default:
		return refusal("ACK", message)
	}
}

// grant passes ownership of what was accepted.
func (m *mover) grant(ctx context.Context, b *batch, ack *handoff.Ack) error {
	err := m.send(ctx, &handoff.Grant{Offers: []uint64{b.offer.ID}})
	moved := 0
	for i, result := range ack.Results {
		if !result.Accepted {
			// It would refuse the next ones as well, and this one again when it is at its next boundary.
			err = errors.Join(err, errMove, &handoff.RefusedError{Sentinel: handoff.ErrRefused, Reason: result.Reason, Detail: result.Detail})
			m.back = append(m.back, b.connections[i])
			continue
		}
		// Even if GRANT was not sent whole: the successor may have it. No owner is better than two.
		_ = b.connections[i].Close()
		moved++
	}
	m.settle(moved, moved)
	return err
}

// finish gives back what was not granted, and everything that is put in from now on.
func (m *mover) finish(cause error, underWay map[uint64]*batch) {
	m.mu.Lock()
	m.over = true
	back := append(m.back, m.queue...)
	m.back, m.queue = nil, nil
	m.mu.Unlock()
	for _, b := range underWay {
		back = append(back, b.connections...)
	}
	if len(back) > 0 || !errors.Is(cause, context.Canceled) {
		m.log.Warn("connections are not moved any more", "given back", len(back), "error", cause)
	}
	// So that the successor, if it lives, knows that what it has acknowledged stays here: should this process die, it would
	// take it for its own.
	telling, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	_ = m.session.Send(telling, &handoff.Rollback{Reason: handoff.ReasonFor(cause)})
	close(m.broken)
	for _, c := range back {
		m.giveBack(c)
	}
	m.settle(len(back), 0)
}
