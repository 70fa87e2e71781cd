package listener

import "net"

// A connection is closed here, or it is detached and ends elsewhere: boundary.mu decides. What the peer would notice of an end is done
// only by who got true from boundary.end, and from there nobody detaches it.

// Close closes the connection. With the first call it no longer counts in its Listener's Conns. A detached connection stays open
// for whoever has it now.
func (c *Conn) Close() error {
	mine, err := c.shut()
	if !mine {
		_ = c.closeInner() // it may be closed already
	}
	// In this order: so whoever waits for the last connection to leave the roster finds its descriptor closed.
	c.roster.leave(c)
	return err
}

// shut closes the connection, unless it was detached, and reports whether it was this process's to close. It stays on its roster.
func (c *Conn) shut() (mine bool, err error) {
	if !c.boundary.end() {
		return false, nil
	}
	if c.adopted {
		// The kernel tells the peer of a close(2) when the last descriptor is closed, and a process that hangs may have one.
		_ = c.inner.CloseWrite()
	}
	if err = c.closeInner(); err == nil {
		c.boundary.noteEnd()
	}
	return true, err
}

// abort closes the connection so that the peer sees a reset, if it is one of TCP.
func (c *Conn) abort() {
	if !c.boundary.end() {
		return
	}
	if tcp, ok := c.inner.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	if c.closeInner() == nil {
		c.boundary.noteEnd()
	}
	c.roster.leave(c)
}

// keep undoes release. If the connection was to be closed meanwhile, it is now.
func (c *Conn) keep(d *Detached) {
	_ = d.Close()
	b := &c.boundary
	b.mu.Lock()
	b.detached.Store(false)
	closing := b.closing
	b.mu.Unlock()
	if closing {
		_ = c.Close()
	}
}

// closeInner closes this process's descriptor. To set a deadline fails from here, and so has to be tried.
func (c *Conn) closeInner() error {
	err := c.inner.Close()
	c.boundary.expose()
	return err
}

// end begins the end of the connection, and reports whether it is this process's to end. Nobody is to take it back from here.
func (b *boundary) end() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closing = true
	if b.detached.Load() {
		return false
	}
	if b.slot != nil {
		b.slot.Use()
	}
	return true
}

// noteEnd notes that the connection was closed, and nothing more: it is not lost if this process dies, as one in use would be. The peer knows
// of it, and no Read is in the kernel.
func (b *boundary) noteEnd() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.slot != nil {
		b.slot.End()
		b.slot = nil
	}
}
