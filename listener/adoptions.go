package listener

import (
	"net"
	"sync"
)

var _ net.Listener = (*adoptions)(nil)

// adoptions is the queue between Adopt and a server.
type adoptions struct {
	addr func() net.Addr

	mu      sync.Mutex
	waiting []*Conn
	closed  bool
	change  chan struct{} // has room for one: there may be something to do
}

func (a *adoptions) init(addr func() net.Addr) {
	a.addr, a.change = addr, make(chan struct{}, 1)
}

func (a *adoptions) push(c *Conn) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return net.ErrClosed
	}
	a.waiting = append(a.waiting, c)
	a.signal()
	return nil
}

// signal wakes one Accept. The caller holds mu.
func (a *adoptions) signal() {
	select {
	case a.change <- struct{}{}:
	default:
	}
}

// Accept returns the connections in the order of their adoption. After Close it returns those that wait, and then net.ErrClosed.
func (a *adoptions) Accept() (net.Conn, error) {
	for {
		a.mu.Lock()
		if len(a.waiting) > 0 {
			c := a.waiting[0]
			a.waiting[0] = nil
			a.waiting = a.waiting[1:]
			if len(a.waiting) > 0 {
				a.signal()
			}
			a.mu.Unlock()
			return c, nil
		}
		if a.closed {
			a.signal() // for the next
			a.mu.Unlock()
			return nil, net.ErrClosed
		}
		a.mu.Unlock()
		<-a.change
	}
}

// Close ends Accept. What waits is still accepted.
func (a *adoptions) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.signal()
	return nil
}

// Addr returns the Listener's address.
func (a *adoptions) Addr() net.Addr { return a.addr() }
