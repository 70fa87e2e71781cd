package listener

import (
	"context"
	"sync"
	"sync/atomic"
)

// roster lists the connections that a listener has accepted and that are not closed yet. The list runs through the
// connections themselves, so a connection costs two pointers.
type roster struct {
	name    string                      // of the listener
	options atomic.Pointer[ConnOptions] // of what the listener accepts; nil as long as nobody has asked

	mu      sync.Mutex
	first   *Conn
	n       int
	entered uint64         // how many ever entered
	ended   uint64         // how many have left because they were closed
	total   *atomic.Uint64 // the same of all listeners of the Set; nil if there is none
	empty   chan struct{}  // made by who waits for n == 0, closed then
	sink    Sink           // who wants the connections; nil if they stay
	cursor  *Conn          // the next one to be asked for itself
}

// enter puts c, which is on no roster, on this one.
func (r *roster) enter(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.roster = r
	c.next = r.first
	if c.next != nil {
		c.next.prev = c
	}
	r.first = c
	c.listed = true
	r.n++
	r.entered++
	if !c.refused {
		c.boundary.sink = r.sink // nobody else has c yet
	}
}

// leave takes c off and reports whether it was on it: the first call wins. If c was not detached, it has ended.
func (r *roster) leave(c *Conn) bool { return r.remove(c, !c.boundary.detached.Load()) }

// remove is leave for who knows better whether c has ended.
func (r *roster) remove(c *Conn, ended bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !c.listed {
		return false
	}
	if r.cursor == c {
		r.cursor = c.next
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		r.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.next, c.prev, c.listed = nil, nil, false
	r.n--
	if ended {
		r.ended++
		if r.total != nil {
			r.total.Add(1)
		}
	}
	if r.n == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
	return true
}

func (r *roster) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// closed is Listener.Ended.
func (r *roster) closed() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// wait returns nil once the roster is empty, or was for a moment; ctx's error if that ends first.
func (r *roster) wait(ctx context.Context) error {
	r.mu.Lock()
	if r.n == 0 {
		r.mu.Unlock()
		return nil
	}
	if r.empty == nil {
		r.empty = make(chan struct{})
	}
	empty := r.empty
	r.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// all is a copy of the list.
func (r *roster) all() []*Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*Conn, 0, r.n)
	for c := r.first; c != nil; c = c.next {
		list = append(list, c)
	}
	return list
}

// closeAll is Listener.CloseConns.
func (r *roster) closeAll() int {
	n := 0
	for _, c := range r.all() {
		mine, err := c.shut()
		if !mine {
			continue // who has detached it takes it off
		}
		if err == nil { // else another Close was first
			n++
		}
		r.leave(c) // its server does so, too, as soon as its Read ends
	}
	return n
}

// ask is Listener.DetachAmong.
func (r *roster) ask(most, n int, sink Sink) (met, waiting int) {
	r.mu.Lock()
	r.sink = sink
	if r.cursor == nil {
		r.cursor = r.first
	}
	r.mu.Unlock()
	for met < most && waiting < n {
		c := r.advance()
		if c == nil {
			break
		}
		if c.refused {
			continue
		}
		before, waits := c.boundary.ask(c.inner, sink)
		if !before {
			met++
		}
		if waits {
			waiting++
		}
	}
	return met, waiting
}

// advance returns the connection at the cursor and moves it on.
func (r *roster) advance() *Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.cursor
	if c != nil {
		r.cursor = c.next
	}
	return c
}

// retain is Listener.Retain.
func (r *roster) retain() {
	r.mu.Lock()
	r.sink, r.cursor = nil, nil
	r.mu.Unlock()
	for _, c := range r.all() {
		c.boundary.retain()
	}
}

// settle is Listener.Settle.
func (r *roster) settle() {
	for _, c := range r.all() {
		c.boundary.settle()
	}
}
