package restart

import (
	"context"
	"sync"

	"github.com/segue-go/segue/handoff"
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

	unwanted map[string]bool // kinds of raw connections that the successor does not know
	ended    bool            // nothing leaves any more
}

func newDepartures() *departures { return &departures{wake: make(chan struct{}, 1)} }

// ask asks servers for connections, as DetachAmong does.
func (q *departures) ask(from *origin, most, n int, refuse func(moving)) (met, asked int) {
	met, asked = from.DetachAmong(most, n, func(d *listener.Detached, asked bool) {
		if c := (moving{from: from, Detached: d}); !q.put(c, asked) {
			refuse(c)
		}
	})
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked += asked // perhaps after some have answered
	return met, asked
}

// put takes what a connection answered. It reports false if the connection is not wanted any more.
func (q *departures) put(c moving, asked bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if asked {
		q.asked--
	}
	if c.Detached == nil {
		return true // the next tick has another one asked: if no descriptor is free, to do so now would be without end
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

// expect announces n connections that were handed on by Detach, which have to be settled. It reports false if they are not wanted.
func (q *departures) expect(kind string, n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended || q.unwanted[kind] {
		return false
	}
	q.pending += n
	return true
}

// putParty takes what was announced, whether or not servers may give up connections just now. It reports false if it is too late.
func (q *departures) putParty(p *party) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return false
	}
	q.queue = append(q.queue, p.moving()...)
	q.signal()
	return true
}

// unwant has connections of a kind stay where they are.
func (q *departures) unwant(kind string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.unwanted == nil {
		q.unwanted = make(map[string]bool)
	}
	q.unwanted[kind] = true
}

// end lets nothing in any more.
func (q *departures) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
}

// first is how many connections are the least that can be taken from the queue.
func (q *departures) first() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(q.groupAt(0), 1)
}

// groupAt is how many connections at that place in the queue travel together. The caller holds mu.
func (q *departures) groupAt(i int) int {
	if i >= len(q.queue) {
		return 0
	}
	if p := q.queue[i].party; p != nil {
		return len(p.members)
	}
	return 1
}

// take returns up to n connections from the queue, no more than fit into one offer. What travels together stays together.
func (q *departures) take(n int) []moving {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = q.fitting(n)
	taken := q.queue[:n:n]
	q.queue = q.queue[n:]
	return taken
}

// fitting is how many of n connections fit into one offer. The caller holds mu.
func (q *departures) fitting(n int) int {
	fits, bytes := 0, 0
	for fits < len(q.queue) {
		group := q.groupAt(fits)
		for _, c := range q.queue[fits : fits+group] {
			bytes += c.size()
		}
		if fits+group > n || fits > 0 && bytes > maxOfferData {
			break
		}
		fits += group
	}
	return fits
}

// maxOfferData is how many bytes of data may be in an offer of more than one Detach. One alone has less than twice as many, and
// both fit into a frame.
const maxOfferData = handoff.MaxData

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
