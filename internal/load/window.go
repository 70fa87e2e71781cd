package load

import (
	"sync"
	"sync/atomic"
	"time"
)

// window is the time of one upgrade. Windows form a list that clients walk at their own pace: each keeps the last one it
// has settled, and what all have passed is garbage.
type window struct {
	start time.Duration
	end   atomic.Int64 // zero while open
	next  atomic.Pointer[window]
}

// close ends the window, once.
func (w *window) close(now time.Duration) {
	w.end.CompareAndSwap(0, max(1, int64(now)))
}

// windows is the growing end of the list.
type windows struct {
	mu   sync.Mutex
	last *window
}

// first returns the head of the list, which is no upgrade's window. It must come before open.
func (l *windows) first() *window {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = new(window)
		l.last.close(0)
	}
	return l.last
}

// open appends a window that starts now and returns the function that ends it.
func (l *windows) open(clock func() time.Duration) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &window{start: clock()}
	l.last.close(w.start)
	l.last.next.Store(w)
	l.last = w
	return func() { w.close(clock()) }
}

// pauses is where one client is in the list, and its slowest request in the window after that.
type pauses struct {
	at      *window
	slowest time.Duration
}

// observe accounts for a request in each window it overlaps, and in each of which it is the first answer after the end: the
// client has then settled, and its slowest request there is its pause.
func (p *pauses) observe(h *histogram, sent, done time.Duration) {
	for {
		w := p.at.next.Load()
		if w == nil || done < w.start {
			return
		}
		p.slowest = max(p.slowest, done-sent, 1)
		if end := time.Duration(w.end.Load()); end == 0 || done < end {
			return
		}
		p.settle(h)
	}
}

// settle ends the account of the window after at, if there is anything on it.
func (p *pauses) settle(h *histogram) {
	if p.slowest == 0 {
		return
	}
	h.add(p.slowest)
	p.at, p.slowest = p.at.next.Load(), 0
}
