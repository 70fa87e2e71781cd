//go:build unix

package listener

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// canInherit: this platform passes descriptors on.
const canInherit = true

// maxPath is the longest path of a Unix socket in bytes: sun_path less its final NUL.
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// inspect asks the kernel what the descriptor is.
func inspect(c syscall.Conn) (b bound, err error) {
	closed := control(c, func(fd uintptr) { b, err = inspectFD(int(fd)) })
	if closed != nil {
		return bound{}, closed
	}
	return b, err
}

func inspectFD(fd int) (bound, error) {
	sotype, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return bound{}, os.NewSyscallError("getsockopt", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return bound{}, os.NewSyscallError("getsockname", err)
	}
	b := bound{listening: true}
	var stream, dgram, seqpacket string
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		stream, dgram = "tcp", "udp"
		b.inet = netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
	case *unix.SockaddrInet6:
		stream, dgram = "tcp", "udp"
		b.inet = netip.AddrPortFrom(netip.AddrFrom16(name.Addr), uint16(name.Port))
		b.zone = int(name.ZoneId)
		only6, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err != nil {
			return bound{}, os.NewSyscallError("getsockopt", err)
		}
		b.only6 = only6 != 0
	case *unix.SockaddrUnix:
		stream, dgram, seqpacket = "unix", "unixgram", "unixpacket"
		b.path = name.Name
	}
	switch sotype {
	case unix.SOCK_STREAM:
		b.network = stream
	case unix.SOCK_DGRAM:
		b.network = dgram
	case unix.SOCK_SEQPACKET:
		b.network = seqpacket
	}
	if b.network == "" {
		return bound{}, fmt.Errorf("socket of type %d and address %T: %w", sotype, name, ErrNetwork)
	}
	switch on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); {
	case err == nil:
		b.listening = on != 0
	case !errors.Is(err, unix.ENOPROTOOPT): // a platform that does not tell
		return bound{}, os.NewSyscallError("getsockopt", err)
	}
	return b, nil
}
