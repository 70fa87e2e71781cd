package listener

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// ErrAdopt says that what was given to Adopt is no connection that this listener could have accepted.
var ErrAdopt = errors.New("cannot adopt connection")

// Detached is a connection that was taken out of its server at a boundary, on its way to another one. Nobody reads or writes it.
type Detached struct {
	// File is the connection's descriptor, close-on-exec and non-blocking. Whoever holds the Detached owns it, and reads and writes
	// nothing.
	File *os.File
	// Residual is what was read from the kernel and not consumed, three bytes at most. The next server reads it first.
	Residual []byte
	// Idle says that it was between two requests, and not before its first.
	Idle bool
	// Left is how long the server would have waited for the next request, if Idle. 0 means for ever.
	Left time.Duration
	// Options of the socket that package net sets anew when it makes a connection of a descriptor.
	Options ConnOptions
}

// Close closes the connection.
func (d *Detached) Close() error { return d.File.Close() }

// expired is what is left of a deadline that has passed.
const expired = time.Nanosecond

// detach takes the connection out of its server, which is about to read into size bytes, and returns what gives it to who wants
// it, to be called without a lock. It returns nil if it cannot be detached. The caller holds mu.
func (b *boundary) detach(c *Conn, size int) (deliver func()) {
	early := 0
	if b.idle {
		if early = serverBuffer - size; early < 0 || early > int(b.ntail) {
			return nil // not the buffer that MarkIdle knows
		}
	}
	d := &Detached{Idle: b.idle}
	d.Residual = append(d.Residual, b.tail[int(b.ntail)-early:b.ntail]...)
	d.Residual = append(d.Residual, b.residual...)
	until := b.deadline
	if b.waiting {
		d.Idle, until = true, b.waitUntil
	}
	if d.Idle && !until.IsZero() {
		d.Left = max(time.Until(until), expired)
	}
	d.Options = connOptions(c.inner)
	var err error
	if d.File, err = dup(c.inner, "detached connection"); err != nil {
		return nil // no descriptor is free: it stays
	}
	b.at = false
	b.detached.Store(true)
	sink := b.sink
	return func() { sink(d) }
}

// Detach gives every connection that is, or comes, to a boundary to sink, until Retain. It wakes those that wait for a
// request. Sink is called on the goroutine that serves the connection, which then ends; it owns the Detached and must not block.
//
// Only connections take part whose server says where their boundaries are (MarkFresh, MarkIdle). Others stay.
func (l *Listener) Detach(sink func(*Detached)) { l.conns.give(sink) }

// Retain ends what Detach began: connections stay. Sink may still be called for those that are being detached in this instant.
func (l *Listener) Retain() { l.conns.give(nil) }

// Adopt makes d a connection of this listener, for the server that accepts from Adopted. It owns d.File in every case. It fails
// with ErrAdopt if the descriptor is not a connection of the listener's kind, and with net.ErrClosed after Adopted was closed.
func (l *Listener) Adopt(d *Detached) error {
	inner, err := net.FileConn(d.File) // duplicates
	_ = d.Close()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAdopt, err)
	}
	conn, ok := inner.(stream)
	if !ok || inner.LocalAddr().Network() != l.Addr().Network() {
		_ = inner.Close()
		return fmt.Errorf("%w: a %T of %s for %s", ErrAdopt, inner, inner.LocalAddr().Network(), l.Addr().Network())
	}
	d.Options.apply(conn)
	c := &Conn{inner: conn, adopted: true}
	b := &c.boundary
	b.residual, b.adopted = d.Residual, time.Now()
	if d.Idle {
		b.waiting, b.newlines = true, maxNewlines
		if d.Left > 0 {
			b.waitUntil = b.adopted.Add(d.Left)
			_ = conn.SetReadDeadline(b.waitUntil)
		}
	}
	l.conns.enter(c)
	if err := l.adopted.push(c); err != nil {
		_ = c.Close()
		return err
	}
	return nil
}

// Adopted returns a listener that accepts the connections that were given to Adopt, and that count in Conns like the others. It stays open
// when the Listener is closed: what could not be handed over comes back this way while the server drains. Close it when the server
// has ended.
func (l *Listener) Adopted() net.Listener { return &l.adopted }
