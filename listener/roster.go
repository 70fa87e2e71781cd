package listener

import (
	"context"
	"sync"
)

// roster lists the connections that a listener has accepted and that are not closed yet. The list runs through the
// connections themselves, so a connection costs two pointers.
type roster struct {
	mu      sync.Mutex
	first   *Conn
	n       int
	entered uint64          // how many ever entered
	empty   chan struct{}   // made by who waits for n == 0, closed then
	sink    func(*Detached) // who wants the connections; nil if they stay
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
	c.boundary.sink = r.sink // nobody else has c yet
}

// leave takes c off and reports whether it was on it: the first call wins.
func (r *roster) leave(c *Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !c.listed {
		return false
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

// give asks for every connection that comes to a boundary, those to come included, or, with a nil sink, takes that back.
func (r *roster) give(sink func(*Detached)) {
	r.mu.Lock()
	r.sink = sink
	r.mu.Unlock()
	for _, c := range r.all() {
		c.boundary.give(c.inner, sink)
	}
}
