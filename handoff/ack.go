package handoff

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// DefaultAckDeadline is how long a peer may take to acknowledge an offer.
const DefaultAckDeadline = 5 * time.Second

// AckRegistry holds the offers that a peer has not acknowledged yet, with a value of the caller's for each: what to take
// back if no ack comes. Acks may come in any order.
//
// An offer leaves the registry once: acknowledged, abandoned, or overdue. From then on its token is not pending either.
// The zero value is ready to use; set the fields before the first call. Safe for concurrent use.
type AckRegistry[T any] struct {
	// Deadline is how long an ack may take; 0 and less mean DefaultAckDeadline.
	Deadline time.Duration
	// Capacity is how many offers may wait; 0 and less mean DefaultTokenCapacity.
	Capacity int
	// Tokens is where the tokens of the offers are pending. An ack consumes its token there, everything else revokes it.
	// nil means that they are pending nowhere.
	Tokens *TokenStore
	// Now tells the time; nil means time.Now.
	Now func() time.Time

	mu      sync.Mutex
	pending map[uint64]pendingAck[T]
	count   uint64 // of all that ever waited: the order in which they did
}

type pendingAck[T any] struct {
	token Token
	value T
	due   time.Time
	order uint64
}

// Register starts the wait for the ack of an offer. Call it before the offer is sent: an ack can be faster than the
// sender's next line. It fails with ErrTokenMissing, with ErrOffer for an id that waits already, and with
// ErrDescriptorPressure when too many do.
func (r *AckRegistry[T]) Register(id uint64, token Token, value T) error {
	if token.IsZero() {
		return ErrTokenMissing
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	capacity := r.Capacity
	if capacity <= 0 {
		capacity = DefaultTokenCapacity
	}
	if len(r.pending) >= capacity {
		return fmt.Errorf("%w: %d offers wait for their ack", ErrDescriptorPressure, len(r.pending))
	}
	if _, taken := r.pending[id]; taken {
		return fmt.Errorf("%w: offer %d waits for its ack already", ErrOffer, id)
	}
	deadline := r.Deadline
	if deadline <= 0 {
		deadline = DefaultAckDeadline
	}
	if r.pending == nil {
		r.pending = make(map[uint64]pendingAck[T])
	}
	r.count++
	r.pending[id] = pendingAck[T]{token: token, value: value, due: r.now().Add(deadline), order: r.count}
	return nil
}

// Acknowledge ends the wait for an offer whose ack came, which echoes its token, and returns its value. It does not ask what
// the ack says: a refusal in time ends the wait as well.
//
// ErrAck means that it does not wait, because it never did, or was acknowledged or overdue before; ErrTokenMissing and
// ErrTokenMismatch, that the echo is wrong, and it waits on. Any other error means that the ack does not count and the
// wait is over: the value comes beside the error, to be taken back. That is ErrAckTimeout for a late ack, and the errors
// of TokenStore.Consume for a token that was no longer pending.
func (r *AckRegistry[T]) Acknowledge(id uint64, echo Token) (T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var none T
	found, ok := r.pending[id]
	switch {
	case !ok:
		return none, fmt.Errorf("%w: offer %d does not wait for one", ErrAck, id)
	case echo.IsZero():
		return none, fmt.Errorf("ack of offer %d: %w", id, ErrTokenMissing)
	case !found.token.Equal(echo):
		return none, fmt.Errorf("ack of offer %d: %w", id, ErrTokenMismatch)
	}
	if late := r.now().Sub(found.due); late >= 0 {
		r.removeLocked(id)
		return found.value, fmt.Errorf("offer %d: %w: %v late", id, ErrAckTimeout, late)
	}
	delete(r.pending, id)
	if r.Tokens == nil {
		return found.value, nil
	}
	if err := r.Tokens.Consume(found.token); err != nil {
		return found.value, fmt.Errorf("ack of offer %d: %w", id, err)
	}
	return found.value, nil
}

// Abandon ends the wait for one offer, because it could not be sent, say. It reports false if that did not wait.
func (r *AckRegistry[T]) Abandon(id uint64) (value T, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, ok := r.pending[id]
	if ok {
		r.removeLocked(id)
	}
	return found.value, ok
}

// AbandonAll ends the wait for all, because the peer is gone, say. The values come in the order of their registration.
func (r *AckRegistry[T]) AbandonAll() []T {
	return r.removeAll(func(pendingAck[T]) bool { return true })
}

// Expire ends the wait for all that are overdue, whose failure is ErrAckTimeout, and returns their values in the order of
// their registration. Call it at the time that Next tells.
func (r *AckRegistry[T]) Expire() []T {
	now := r.now()
	return r.removeAll(func(found pendingAck[T]) bool { return !now.Before(found.due) })
}

// Next tells when the next offer is overdue; false if none waits.
func (r *AckRegistry[T]) Next() (due time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, found := range r.pending {
		if !ok || found.due.Before(due) {
			due, ok = found.due, true
		}
	}
	return due, ok
}

// Pending returns how many offers wait.
func (r *AckRegistry[T]) Pending() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending)
}

func (r *AckRegistry[T]) removeAll(due func(pendingAck[T]) bool) []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	var removed []pendingAck[T]
	for id, found := range r.pending {
		if due(found) {
			r.removeLocked(id)
			removed = append(removed, found)
		}
	}
	slices.SortFunc(removed, func(a, b pendingAck[T]) int { return cmp.Compare(a.order, b.order) })
	values := make([]T, len(removed))
	for i := range removed {
		values[i] = removed[i].value
	}
	return values
}

// removeLocked ends a wait without ack: the token must not be of use to anybody afterwards.
func (r *AckRegistry[T]) removeLocked(id uint64) {
	if r.Tokens != nil {
		r.Tokens.Revoke(r.pending[id].token)
	}
	delete(r.pending, id)
}

func (r *AckRegistry[T]) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}
