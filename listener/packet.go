package listener

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

var (
	_ net.PacketConn = (*PacketConn)(nil)
	_ net.Conn       = (*PacketConn)(nil)
	_ syscall.Conn   = (*PacketConn)(nil)
	_ datagram       = (*net.UDPConn)(nil)
	_ datagram       = (*net.UnixConn)(nil)
)

// datagram is what *net.UDPConn and *net.UnixConn have in common.
type datagram interface {
	net.PacketConn
	net.Conn
	syscall.Conn
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
}

// PacketConn is a packet socket of a [Set]: UDP or a Unix datagram socket. It can be paused and resumed. Only reading pauses:
// a predecessor can still answer what it has read. All methods may be called by several goroutines at once.
//
// Besides [net.PacketConn] it has the methods of [net.Conn] and those of [net.UDPConn] that libraries ask for by interface (QUIC
// implementations, golang.org/x/net/ipv4 and ipv6).
type PacketConn struct {
	member
	inner datagram
	udp   *net.UDPConn // the same, nil if it is a Unix socket
}

// newPacketConn wraps inner, which is open and belongs to the PacketConn from now on.
func newPacketConn(s *Set, r request, inner datagram, inherited bool) *PacketConn {
	p := &PacketConn{inner: inner}
	p.member = member{set: s, request: r, inherited: inherited, inner: inner, gate: &gate{setDeadline: inner.SetReadDeadline}}
	p.udp, _ = inner.(*net.UDPConn)
	return p
}

// Close closes this process's copy of the socket. It does not remove the file of a Unix socket: [Set.Close] does. The Set forgets
// the socket, and its name is free again.
func (p *PacketConn) Close() error { return p.close() }

// Name returns the name it has in its Set.
func (p *PacketConn) Name() string { return p.name }

// Inherited reports whether the socket came from a predecessor.
func (p *PacketConn) Inherited() bool { return p.inherited }

// Pause makes all reading wait. Nothing is lost: datagrams stay in the kernel's queue (as far as SO_RCVBUF goes), for another process
// that has the socket or for Resume. It returns when no reader can take a datagram any more; one that was read before is
// returned to its reader. Read deadlines go on: a reader that waits out a pause gets its [os.ErrDeadlineExceeded] in time.
func (p *PacketConn) Pause() {
	p.gate.shutFor(byOwner)
	p.gate.await()
}

// Resume ends what Pause began. A socket whose Set is paused goes on when that is resumed too.
func (p *PacketConn) Resume() { p.gate.openFor(byOwner) }

// enter is gate.enter with an error as package net makes it.
func (p *PacketConn) enter() (pass uint64, err error) {
	pass, err = p.gate.enter()
	if err != nil {
		err = p.opError("read", err)
	}
	return pass, err
}

func (p *PacketConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: p.network, Source: p.inner.LocalAddr(), Err: err}
}

// ReadFrom reads one datagram, like [net.PacketConn].
func (p *PacketConn) ReadFrom(b []byte) (n int, addr net.Addr, err error) {
	for {
		pass, err := p.enter()
		if err != nil {
			return 0, nil, err
		}
		n, addr, err = p.inner.ReadFrom(b)
		if !p.gate.leave(pass, err) {
			return n, addr, err
		}
	}
}

// Read reads one datagram and drops its sender's address.
func (p *PacketConn) Read(b []byte) (n int, err error) {
	for {
		pass, err := p.enter()
		if err != nil {
			return 0, err
		}
		n, err = p.inner.Read(b)
		if !p.gate.leave(pass, err) {
			return n, err
		}
	}
}

// ReadFromUDPAddrPort is [net.UDPConn.ReadFromUDPAddrPort]. On a Unix socket it fails with [errors.ErrUnsupported].
func (p *PacketConn) ReadFromUDPAddrPort(b []byte) (n int, addr netip.AddrPort, err error) {
	if p.udp == nil {
		return 0, netip.AddrPort{}, p.opError("read", errors.ErrUnsupported)
	}
	for {
		pass, err := p.enter()
		if err != nil {
			return 0, netip.AddrPort{}, err
		}
		n, addr, err = p.udp.ReadFromUDPAddrPort(b)
		if !p.gate.leave(pass, err) {
			return n, addr, err
		}
	}
}

// ReadMsgUDP is [net.UDPConn.ReadMsgUDP]. On a Unix socket it fails with [errors.ErrUnsupported].
func (p *PacketConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	if p.udp == nil {
		return 0, 0, 0, nil, p.opError("read", errors.ErrUnsupported)
	}
	for {
		pass, err := p.enter()
		if err != nil {
			return 0, 0, 0, nil, err
		}
		n, oobn, flags, addr, err = p.udp.ReadMsgUDP(b, oob)
		if !p.gate.leave(pass, err) {
			return n, oobn, flags, addr, err
		}
	}
}

// WriteTo sends one datagram, like [net.PacketConn], also during a pause.
func (p *PacketConn) WriteTo(b []byte, addr net.Addr) (int, error) { return p.inner.WriteTo(b, addr) }

// Write fails: a socket that ListenPacket opened has no peer. It is here for libraries that want a [net.Conn].
func (p *PacketConn) Write(b []byte) (int, error) { return p.inner.Write(b) }

// WriteToUDPAddrPort is [net.UDPConn.WriteToUDPAddrPort]. On a Unix socket it fails with [errors.ErrUnsupported].
func (p *PacketConn) WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	if p.udp == nil {
		return 0, p.opError("write", errors.ErrUnsupported)
	}
	return p.udp.WriteToUDPAddrPort(b, addr)
}

// WriteMsgUDP is [net.UDPConn.WriteMsgUDP]. On a Unix socket it fails with [errors.ErrUnsupported].
func (p *PacketConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	if p.udp == nil {
		return 0, 0, p.opError("write", errors.ErrUnsupported)
	}
	return p.udp.WriteMsgUDP(b, oob, addr)
}

// LocalAddr returns the bound address.
func (p *PacketConn) LocalAddr() net.Addr { return p.inner.LocalAddr() }

// RemoteAddr returns nil: the socket has no peer.
func (p *PacketConn) RemoteAddr() net.Addr { return p.inner.RemoteAddr() }

// SetDeadline sets the deadlines for reading and writing, like [net.PacketConn]. They hold across pauses.
func (p *PacketConn) SetDeadline(t time.Time) error {
	if err := p.SetReadDeadline(t); err != nil {
		return err
	}
	return p.SetWriteDeadline(t)
}

// SetReadDeadline sets the deadline for reading, like [net.PacketConn]. It holds across pauses.
func (p *PacketConn) SetReadDeadline(t time.Time) error { return p.gate.setUserDeadline(t) }

// SetWriteDeadline sets the deadline for writing, like [net.PacketConn].
func (p *PacketConn) SetWriteDeadline(t time.Time) error { return p.inner.SetWriteDeadline(t) }

// SetReadBuffer sets SO_RCVBUF, in bytes. The successor's copy has it too: it belongs to the socket.
func (p *PacketConn) SetReadBuffer(bytes int) error { return p.inner.SetReadBuffer(bytes) }

// SetWriteBuffer sets SO_SNDBUF, in bytes. The successor's copy has it too: it belongs to the socket.
func (p *PacketConn) SetWriteBuffer(bytes int) error { return p.inner.SetWriteBuffer(bytes) }

// SyscallConn gives access to the descriptor, for socket options and for batches (recvmmsg). Its Read waits during a pause, as the
// methods here do. Another process may share the socket. Do not make it blocking.
func (p *PacketConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := p.inner.SyscallConn()
	if err != nil {
		return nil, err
	}
	return rawPacketConn{raw, p}, nil
}

// rawPacketConn is a RawConn that knows of pauses. (golang.org/x/net reads batches through it: that must not take datagrams
// that are meant for the successor, nor fail with a timeout which nobody set.)
type rawPacketConn struct {
	syscall.RawConn
	p *PacketConn
}

func (r rawPacketConn) Read(f func(fd uintptr) (done bool)) error {
	for {
		pass, err := r.p.enter()
		if err != nil {
			return err
		}
		err = r.RawConn.Read(f)
		if !r.p.gate.leave(pass, err) {
			return err
		}
	}
}
