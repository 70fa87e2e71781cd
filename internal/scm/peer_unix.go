//go:build linux || darwin || freebsd

package scm

import (
	"net"
	"os"
)

// PeerUID is the effective uid of the process at the other end, as the kernel noted it when that process called
// connect(2) or listen(2).
func PeerUID(conn *net.UnixConn) (uid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, opError("identify peer", conn, err)
	}
	if controlErr := raw.Control(func(fd uintptr) { uid, err = peerUID(int(fd)) }); controlErr != nil {
		return -1, opError("identify peer", conn, controlErr)
	}
	if err != nil {
		return -1, opError("identify peer", conn, os.NewSyscallError("getsockopt", err))
	}
	return uid, nil
}
