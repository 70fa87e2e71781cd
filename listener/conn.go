package listener

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ syscall.Conn  = (*Conn)(nil)
	_ stream        = (*net.TCPConn)(nil)
	_ stream        = (*net.UnixConn)(nil)
)

// stream is what *net.TCPConn and *net.UnixConn have in common. A Conn wraps one of the two and nothing else.
type stream interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// buffersWriter is here for an unexported method: [net.Buffers.WriteTo] uses writev(2) only for types that have package net's
// writeBuffers, and to embed such a type is the only way to have it. (That it is an alias makes the field unexported.)
type buffersWriter = net.TCPConn

// asBuffersWriter returns inner itself. The type of a Conn cannot depend on what it wraps, so a *net.UnixConn poses as a *net.TCPConn:
// in package net both are a struct{ conn }, and if that changes, this does not compile any more.
func asBuffersWriter(inner stream) *buffersWriter {
	switch inner := inner.(type) {
	case *net.TCPConn:
		return inner
	case *net.UnixConn:
		return (*buffersWriter)(inner)
	}
	return new(buffersWriter) // all its methods fail; never reached, see stream
}

func newConn(inner stream) *Conn { return &Conn{buffersWriter: asBuffersWriter(inner), inner: inner} }

// Conn is a connection that a [Listener] accepted. It behaves as the *net.TCPConn or *net.UnixConn that it wraps, and
// is as fast: it adds no goroutine, no buffer and no allocation, copies with sendfile and splice as package net does, also
// from one Conn to another, and writes [net.Buffers] with writev. Its methods may be called by several goroutines at once, like
// those of any net.Conn.
//
// Methods of *net.TCPConn that are not listed here, such as SetNoDelay, it has, too; on a Unix socket they fail.
type Conn struct {
	*buffersWriter
	inner      stream
	roster     *roster
	next, prev *Conn // on the roster
	listed     bool  // all three guarded by roster.mu
	adopted    bool  // another process has, or had, a descriptor of it
	refused    bool  // another process did not want it

	touched atomic.Bool  // its options may have been changed here
	known   *ConnOptions // which it had when it was adopted

	boundary boundary
}

// Read reads from the connection, like [net.Conn]. It returns [io.EOF] once the connection was detached.
func (c *Conn) Read(p []byte) (int, error) {
	// As few calls as possible lie between the server and the kernel: after a system call, and even more after the goroutine has
	// waited, the processor does not know where a function returns to, and each return costs as much as a lock.
	if b := &c.boundary; b.enterQuietly() {
		n, err := c.inner.Read(p)
		if b.leaveQuietly(c.inner, p[:n]) {
			return n, err
		}
		if n, next, err := b.conclude(c, p, n, err); next != again {
			return n, err
		}
	}
	return c.boundary.read(c, p)
}

// Write writes to the connection, like [net.Conn]. Once the connection was detached, it does nothing and reports success: what a
// server still says then is a goodbye, and the connection is not ending.
func (c *Conn) Write(b []byte) (int, error) {
	if c.boundary.detached.Load() {
		return len(b), nil
	}
	return c.inner.Write(b)
}

// Refused reports whether the connection came back from a process that did not want it ([Detached.Refused]): it ends with this process.
func (c *Conn) Refused() bool { return c.refused }

// CloseRead shuts down the reading side of the connection, but not of a detached one. Most callers should use Close.
func (c *Conn) CloseRead() error {
	if c.boundary.detached.Load() {
		return nil
	}
	return c.inner.CloseRead()
}

// CloseWrite shuts down the writing side of the connection, but not of a detached one: the peer reads EOF, and can still answer.
func (c *Conn) CloseWrite() error {
	if c.boundary.detached.Load() {
		return nil
	}
	return c.inner.CloseWrite()
}

// LocalAddr returns the address of this end.
func (c *Conn) LocalAddr() net.Addr { return c.inner.LocalAddr() }

// RemoteAddr returns the address of the other end. It is never nil, but says nothing of a peer that had cut the connection before it was
// adopted: the kernel has forgotten it.
func (c *Conn) RemoteAddr() net.Addr {
	if addr := c.inner.RemoteAddr(); addr != nil {
		return addr
	}
	if network := c.LocalAddr().Network(); network != "tcp" {
		return &net.UnixAddr{Net: network}
	}
	return &net.TCPAddr{}
}

// SetDeadline sets the deadlines for reading and writing, like [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets the deadline for reading, like [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error { return c.boundary.setReadDeadline(c.inner, t) }

// SetWriteDeadline sets the deadline for writing, like [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.inner.SetWriteDeadline(t) }

// SyscallConn gives access to the descriptor, for socket options. Do not make it blocking.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	c.touched.Store(true)
	return c.inner.SyscallConn()
}

// NetConn returns the *net.TCPConn or *net.UnixConn inside, for methods that Conn does not have. Close the Conn, not what
// NetConn returned: it would count as open for ever.
func (c *Conn) NetConn() net.Conn {
	c.touched.Store(true)
	c.boundary.expose()
	return c.inner
}

// ReadFrom copies from r to the connection until EOF: [io.ReaderFrom]. To TCP it is sendfile(2) or splice(2) where
// [net.TCPConn.ReadFrom] uses them.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	// Package net splices only from its own types, so the wrapper of a Conn on the other side has to go, also from
	// inside the LimitedReader that io.CopyN makes.
	switch from := r.(type) {
	case *Conn:
		unread, err := from.writeUnread(c.inner, noLimit)
		if err != nil {
			return unread, err
		}
		n, err := c.readFromInner(from.inner)
		return unread + n, from.boundary.interruption(from.inner, err)
	case *io.LimitedReader:
		if limited, ok := from.R.(*Conn); ok {
			unread, err := limited.writeUnread(c.inner, from.N)
			from.N -= unread
			if err != nil || from.N <= 0 {
				return unread, err
			}
			bare := &io.LimitedReader{R: limited.inner, N: from.N}
			n, err := c.readFromInner(bare)
			from.N = bare.N
			return unread + n, limited.boundary.interruption(limited.inner, err)
		}
	}
	return c.readFromInner(r)
}

func (c *Conn) readFromInner(r io.Reader) (int64, error) {
	if _, ok := r.(io.WriterTo); ok && !reticent(r) {
		c.boundary.expose() // package net gives it what is inside
	}
	if to, ok := c.inner.(io.ReaderFrom); ok {
		return to.ReadFrom(r)
	}
	return io.Copy(c.inner, r) // *net.UnixConn: its ReadFrom is that of a PacketConn
}

// WriteTo copies from the connection to w until EOF: [io.WriterTo]. From TCP it is splice(2) where
// [net.TCPConn.WriteTo] or w's ReadFrom uses it.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	c.ClearBoundary() // what is copied in the kernel does not pass through Read
	if to, ok := w.(*Conn); ok {
		w = to.inner
	}
	if _, ok := w.(io.ReaderFrom); ok && !reticent(w) {
		c.boundary.expose() // package net gives it what is inside
	}
	unread, err := c.writeUnread(w, noLimit)
	if err != nil {
		return unread, err
	}
	var n int64
	if from, ok := c.inner.(io.WriterTo); ok {
		n, err = from.WriteTo(w)
	} else {
		n, err = io.Copy(w, c.inner) // *net.UnixConn: its WriteTo is that of a PacketConn
	}
	return unread + n, c.boundary.interruption(c.inner, err)
}

// reticent reports whether the ReadFrom and WriteTo of end are known to do nothing with what they get but to copy.
func reticent(end any) bool {
	switch end.(type) {
	case *net.TCPConn, *net.UnixConn, *os.File:
		return true
	}
	return false
}
