package listener

import (
	"fmt"
	"net"
)

// Arrival is a connection that another process is handing over, and that is not this process's to read or write yet. Exactly one of its methods is
// called.
type Arrival struct {
	listener *Listener
	conn     *Conn
}

// Expect makes conn, a *net.TCPConn or *net.UnixConn that was received from another process, a connection that counts in Conns, for the server that
// accepts from Adopted: as if this listener were about to accept it. It fails with ErrAdopt, and then conn stays the caller's, if it is not of the listener's
// kind.
func (l *Listener) Expect(conn net.Conn) (*Arrival, error) {
	inner, ok := conn.(stream)
	if !ok || conn.LocalAddr().Network() != l.Addr().Network() {
		return nil, fmt.Errorf("%w: a %T of %s for %s", ErrAdopt, conn, conn.LocalAddr().Network(), l.Addr().Network())
	}
	c := newConn(inner)
	c.adopted = true
	c.boundary.limited = true // as far as is known here
	if tcp, ok := inner.(*net.TCPConn); ok {
		if keepAlive := acceptedKeepAlive(&l.set.ListenConfig, l.inner); keepAlive != nil {
			_ = tcp.SetKeepAliveConfig(*keepAlive) // as Accept does
		}
	}
	l.conns.enter(c)
	return &Arrival{l, c}, nil
}

// Serve gives the connection to the server: it is this process's. It fails with net.ErrClosed, and closes it, after Adopted was closed.
func (a *Arrival) Serve() error {
	err := a.listener.adopted.push(a.conn)
	if err != nil {
		_ = a.conn.Close()
	}
	return err
}

// Close closes this process's descriptor: the connection is the other one's, and does not notice.
func (a *Arrival) Close() error {
	a.conn.boundary.detached.Store(true) // so it does not count as ended here
	err := a.conn.inner.Close()
	a.conn.roster.leave(a.conn)
	return err
}
