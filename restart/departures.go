package restart

import (
	"context"
	"sync"

	"github.com/segue-go/segue/listener"
)

// departures is the queue between the servers that give up connections, each on a goroutine of its own, and the mover. Safe for
// concurrent use.
type departures struct {
	wake chan struct{} // has room for one: there may be something in the queue

	mu      sync.Mutex
	open    bool // connections are taken
	queue   []moving
	asked   int           // connections that were asked for themselves and have not answered
	pending int           // in the queue, or taken from it and not settled
	empty   chan struct{} // made by who waits for pending == 0, closed then
}

func newDepartures() *departures { return &departures{wake: make(chan struct{}, 1)} }

// ask asks servers for n connections at most.
func (q *departures) ask(from *origin, n int, refuse func(moving)) (asked int) {
	asked = from.Detach(n, func(d *listener.Detached, asked bool) {
		if c := (moving{from: from, Detached: d}); !q.put(c, asked) {
			refuse(c)
		}
	})
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked += asked // perhaps after some have answered
	return asked
}

// put takes what a connection answered. It reports false if the connection is not wanted any more.
func (q *departures) put(c moving, asked bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if asked {
		q.asked--
	}
	if c.Detached == nil {
		q.signal() // another can be asked
		return true
	}
	if !q.open {
		return false
	}
	q.queue = append(q.queue, c)
	q.pending++
	q.signal()
	return true
}

func (q *departures) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns up to n connections from the queue.
func (q *departures) take(n int) []moving {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.queue))
	taken := q.queue[:n:n]
	q.queue = q.queue[n:]
	return taken
}

// count returns how many are in the queue or asked to come there, and how many beyond the queue are not settled.
func (q *departures) count() (coming, underWay int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.asked + len(q.queue), q.pending - len(q.queue)
}

// fills reports whether there will soon be more in the queue than there is, up to n.
func (q *departures) fills(n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.asked > 0 && len(q.queue) < n
}

// settle notes that n connections that were taken are at home, here or there.
func (q *departures) settle(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pending -= n; q.pending == 0 && q.empty != nil {
		close(q.empty)
		q.empty = nil
	}
}

// setOpen lets connections in, or returns those that nobody has taken, which have to be settled.
func (q *departures) setOpen(open bool) (back []moving) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = open
	if !open {
		back, q.queue = q.queue, nil
	}
	return back
}

// wait returns when nothing is under way, or ctx ends.
func (q *departures) wait(ctx context.Context) error {
	q.mu.Lock()
	if q.pending == 0 {
		q.mu.Unlock()
		return nil
	}
	if q.empty == nil {
		q.empty = make(chan struct{})
	}
	empty := q.empty
	q.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
