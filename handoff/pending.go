package handoff

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// DefaultPendingCapacity is how many handoffs may wait in a PendingQueue.
	DefaultPendingCapacity = 64
	// DefaultPendingTTL is how long a handoff may wait in a PendingQueue.
	DefaultPendingTTL = 100 * time.Millisecond
)

// PendingQueue holds the handoffs that wait until the peer can take one more. They wait only as long as a client would not
// notice: what is not sent soon is better served by reconnect.
//
// The zero value is ready to use; set the fields before the first call. Safe for concurrent use.
type PendingQueue[T any] struct {
	// Capacity is how many may wait; 0 and less mean DefaultPendingCapacity.
	Capacity int
	// TTL is how long one may wait; 0 and less mean DefaultPendingTTL.
	TTL time.Duration
	// Now tells the time; nil means time.Now.
	Now func() time.Time

	mu      sync.Mutex
	waiting []waitingHandoff[T] // the oldest first
}

type waitingHandoff[T any] struct {
	value T
	due   time.Time
}

// Push appends a handoff. It fails with ErrDescriptorPressure when as many wait as may, overdue ones included: they are
// still somebody's connections until Expire has returned them.
func (q *PendingQueue[T]) Push(value T) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	capacity, ttl := q.Capacity, q.TTL
	if capacity <= 0 {
		capacity = DefaultPendingCapacity
	}
	if ttl <= 0 {
		ttl = DefaultPendingTTL
	}
	if len(q.waiting) >= capacity {
		return fmt.Errorf("%w: %d handoffs wait to be sent", ErrDescriptorPressure, len(q.waiting))
	}
	q.waiting = append(q.waiting, waitingHandoff[T]{value: value, due: q.now().Add(ttl)})
	return nil
}

// Pop takes the oldest handoff that is not overdue; false if there is none.
func (q *PendingQueue[T]) Pop() (value T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	overdue := q.overdueLocked()
	if overdue == len(q.waiting) {
		return value, false
	}
	value = q.waiting[overdue].value
	q.waiting = slices.Delete(q.waiting, overdue, overdue+1)
	return value, true
}

// Expire takes all that are overdue, whose failure is ErrWouldBlock, the oldest first. Call it at the time that Next tells.
func (q *PendingQueue[T]) Expire() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.takeLocked(q.overdueLocked())
}

// Clear takes all, the oldest first.
func (q *PendingQueue[T]) Clear() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.takeLocked(len(q.waiting))
}

// Next tells when the oldest is overdue; false if none waits.
func (q *PendingQueue[T]) Next() (due time.Time, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return time.Time{}, false
	}
	return q.waiting[0].due, true
}

// Len returns how many wait.
func (q *PendingQueue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// overdueLocked counts them. All wait equally long, so they are the first ones.
func (q *PendingQueue[T]) overdueLocked() int {
	now := q.now()
	fresh := slices.IndexFunc(q.waiting, func(waiting waitingHandoff[T]) bool { return now.Before(waiting.due) })
	if fresh < 0 {
		return len(q.waiting)
	}
	return fresh
}

func (q *PendingQueue[T]) takeLocked(count int) []T {
	values := make([]T, count)
	for i := range values {
		values[i] = q.waiting[i].value
	}
	q.waiting = slices.Delete(q.waiting, 0, count)
	return values
}

func (q *PendingQueue[T]) now() time.Time {
	if q.Now != nil {
		return q.Now()
	}
	return time.Now()
}
