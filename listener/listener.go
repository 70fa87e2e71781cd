package listener

import (
	"context"
	"net"
	"syscall"
	"time"
)

var (
	_ net.Listener = (*Listener)(nil)
	_ syscall.Conn = (*Listener)(nil)
	_ acceptor     = (*net.TCPListener)(nil)
	_ acceptor     = (*net.UnixListener)(nil)
)

// acceptor is what *net.TCPListener and *net.UnixListener have in common.
type acceptor interface {
	net.Listener
	syscall.Conn
	SetDeadline(time.Time) error
}

// Listener is a listening socket of a [Set]. It can be paused and resumed, and it knows the connections it has accepted.
// All methods may be called by several goroutines at once.
type Listener struct {
	member
	inner     acceptor
	conns     roster
	adopted   adoptions
	keepAlive *net.KeepAliveConfig // for each accepted connection; nil if package net has set it already
}

// newListener wraps inner, which is open and belongs to the Listener from now on.
func newListener(s *Set, r request, inner acceptor, inherited bool) *Listener {
	l := &Listener{inner: inner, conns: roster{name: r.name, total: &s.ended}}
	l.adopted.init(inner.Addr)
	l.member = member{set: s, request: r, inherited: inherited, inner: inner, gate: &gate{setDeadline: inner.SetDeadline}}
	if unix, ok := inner.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false) // only Set.Close knows whether there is a successor
	}
	if inherited {
		l.keepAlive = acceptedKeepAlive(&s.ListenConfig, inner)
	}
	return l
}

// Accept waits for the next connection and returns it as a *[Conn]. While the listener is paused it waits, and once resumed it
// returns what has queued up. After Close it returns [net.ErrClosed], also to those who wait out a pause.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn is Accept with the concrete type.
func (l *Listener) AcceptConn() (*Conn, error) {
	for {
		pass, err := l.gate.enter()
		if err != nil {
			return nil, err
		}
		inner, err := l.inner.Accept()
		if err != nil {
			if l.gate.leave(pass, err) {
				continue
			}
			return nil, err
		}
		c := newConn(inner.(stream))
		// On the roster before out of the gate: so Pause and then WaitConns misses none.
		l.conns.enter(c)
		l.gate.leave(pass, nil)
		if l.keepAlive != nil {
			if tcp, ok := inner.(*net.TCPConn); ok {
				_ = tcp.SetKeepAliveConfig(*l.keepAlive) // as in package net, the connection is good without it
			}
		}
		return c, nil
	}
}

// Close closes this process's copy of the socket. It does not remove the file of a Unix socket: [Set.Close] does. Accepted connections
// stay open. The Set forgets the listener, and its name is free again.
func (l *Listener) Close() error { return l.close() }

// Addr returns the bound address.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Name returns the name it has in its Set.
func (l *Listener) Name() string { return l.name }

// Inherited reports whether the socket came from a predecessor.
func (l *Listener) Inherited() bool { return l.inherited }

// SyscallConn gives access to the descriptor, for socket options (see [net.TCPListener.SyscallConn]: Control only).
// Another process may share the socket. Do not make it blocking.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.inner.SyscallConn() }

// Pause stops accepting without closing anything: connections still get established by the kernel and wait in its queue, for
// another process that has the socket or for Resume. It returns when no Accept can take a connection any more. One
// that the kernel had given to Accept before is returned to Accept's caller as usual, and counts in Conns when Pause returns.
// Pausing a paused listener does nothing.
func (l *Listener) Pause() {
	l.gate.shutFor(byOwner)
	l.gate.await()
}

// Resume ends what Pause began. A listener whose Set is paused goes on when that is resumed too.
func (l *Listener) Resume() { l.gate.openFor(byOwner) }

// Conns returns the number of connections that were accepted and not yet closed.
func (l *Listener) Conns() int { return l.conns.len() }

// Ended returns how many of its connections were closed in this process until now: not those that were detached.
func (l *Listener) Ended() uint64 { return l.conns.closed() }

// WaitConns returns nil as soon as no accepted connection is open, or the cause of ctx's end if that comes first. New
// connections can arrive at any time unless the listener is paused or closed.
func (l *Listener) WaitConns(ctx context.Context) error { return l.conns.wait(ctx) }

// CloseConns closes the accepted connections that are open and returns how many they were. Those accepted meanwhile are not
// closed: pause the listener first.
func (l *Listener) CloseConns() int { return l.conns.closeAll() }
