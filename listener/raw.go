package listener

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"time"

	"github.com/segue-go/segue/internal/scm"
)

var (
	// ErrInterrupted says that Conn.Interrupt was called. Nothing was read.
	ErrInterrupted = errors.New("read interrupted")
	// ErrDetached says that the connection is not this process's any more.
	ErrDetached = errors.New("connection is detached")
	// ErrReading says that a Read is under way that would lose what it gets.
	ErrReading = errors.New("connection is being read")
)

// Interrupt makes a Read fail with [ErrInterrupted]: the one that waits for the peer, or else the next one, and just that. WriteTo
// and ReadFrom, if they read from this connection, fail the same way. Nothing is lost, and the deadline for reading stays what it
// was: a handler does what it was interrupted for, and may read on.
//
// A Write that waits is not interrupted: SetWriteDeadline is the way, and Write then tells how much it has written.
func (c *Conn) Interrupt() { c.boundary.interrupt(c.inner) }

func (b *boundary) interrupt(inner stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.woken = true
	_ = b.limit(inner, past) // net.Conn is safe for that during a Read
}

// interruption makes ErrInterrupted of the error of a copy that Interrupt ended.
func (b *boundary) interruption(inner stream, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.woken {
		return err
	}
	b.woken = false
	b.restoreDeadline(inner)
	return ErrInterrupted
}

// Unread gives back what was read and not consumed: p is read again before anything else, here or, when the connection was
// detached, in the next process. It copies p. Whoever reads the connection calls it, between two Reads. It is not for connections that
// net/http serves.
func (c *Conn) Unread(p []byte) {
	if len(p) > 0 {
		c.boundary.residual = append(append(make([]byte, 0, len(p)+len(c.boundary.residual)), p...), c.boundary.residual...)
	}
}

// Unreads is how many bytes were given back and not read again. Whoever reads the connection may call it.
func (c *Conn) Unreads() int { return len(c.boundary.residual) }

const noLimit = math.MaxInt64

// writeUnread writes up to limit bytes of what was given back to w.
func (c *Conn) writeUnread(w io.Writer, limit int64) (int64, error) {
	unread := c.boundary.residual
	if int64(len(unread)) > limit {
		unread = unread[:limit]
	}
	if len(unread) == 0 {
		return 0, nil
	}
	n, err := w.Write(unread)
	c.boundary.residual = c.boundary.residual[n:]
	return int64(n), err
}

// DetachConns takes connections from their handlers, all or, if it fails, none. Their handlers neither read nor write them: one whose
// Read is under way is [ErrReading], one that was detached before [ErrDetached], one that somebody closes [net.ErrClosed]. What was given back with [Conn.Unread] goes along;
// deadlines do not. When DetachConns returns, they do not count in their Listener's Conns any more.
func DetachConns(conns ...*Conn) ([]*Detached, error) {
	list := make([]*Detached, 0, len(conns))
	for _, c := range conns {
		d, err := c.boundary.release(c)
		if err != nil {
			for i, d := range list {
				conns[i].keep(d)
			}
			return nil, fmt.Errorf("detach %v: %w", c.RemoteAddr(), err)
		}
		list = append(list, d)
	}
	for _, c := range conns {
		// It waits for what is under way in spite of all, so that nothing of this process touches the connection from here.
		_ = c.Close()
	}
	return list, nil
}

// release is detach for a handler that says itself where the boundary is: here.
func (b *boundary) release(c *Conn) (*Detached, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.detached.Load():
		return nil, ErrDetached
	case b.closing:
		return nil, net.ErrClosed
	case b.reading, b.held:
		return nil, ErrReading
	}
	descriptor, err := scm.Duplicate(c.inner)
	if err != nil {
		return nil, err
	}
	b.at = false
	b.detached.Store(true)
	return &Detached{Descriptor: descriptor, Residual: b.residual, Options: c.options(), Listener: c.roster.name, At: time.Now()}, nil
}

// AdoptConn makes d a connection that counts in this listener's Conns and that the caller serves. It owns d in every case, and fails
// with ErrAdopt if the descriptor is no connection. It works when the Listener is closed, too.
func (l *Listener) AdoptConn(d *Detached) (*Conn, error) { return l.conns.adopt(d) }

// Strays are connections that no Listener of this process has accepted: those that it dialed itself, and those whose listener it does
// not have. The zero value is ready.
type Strays struct{ conns roster }

// Add makes conn, a *net.TCPConn or a *net.UnixConn, one of them, and so one that can be detached. It fails with ErrAdopt, and then
// conn stays the caller's.
func (s *Strays) Add(conn net.Conn) (*Conn, error) {
	inner, ok := conn.(stream)
	if !ok {
		return nil, fmt.Errorf("%w: a %T, want a *net.TCPConn or a *net.UnixConn", ErrAdopt, conn)
	}
	c := newConn(inner)
	c.boundary.expose() // the caller may have set a deadline, and may do so again
	s.conns.enter(c)
	return c, nil
}

// AdoptConn is Listener.AdoptConn for a connection that no Listener of this process could have accepted.
func (s *Strays) AdoptConn(d *Detached) (*Conn, error) { return s.conns.adopt(d) }

// Conns is like that of Listener.
func (s *Strays) Conns() int { return s.conns.len() }

// Ended is like that of Listener.
func (s *Strays) Ended() uint64 { return s.conns.closed() }

// WaitConns is like that of Listener.
func (s *Strays) WaitConns(ctx context.Context) error { return s.conns.wait(ctx) }

// CloseConns is like that of Listener.
func (s *Strays) CloseConns() int { return s.conns.closeAll() }

func (r *roster) adopt(d *Detached) (*Conn, error) {
	c, err := adopt(d)
	if err != nil {
		return nil, err
	}
	r.enter(c)
	return c, nil
}

// hold has DetachConns fail with ErrReading while a Relay has the connection.
func (b *boundary) hold(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = on
}
