//go:build linux || freebsd

package scm

import "golang.org/x/sys/unix"

// sendNonblock is a sendmsg(2) that never blocks.
func sendNonblock(fd int, p, control []byte) (n int, err error) {
	return unix.SendmsgN(fd, p, control, nil, sendFlags)
}

// receiveCloexec is a recvmsg(2) that never blocks and whose descriptors are born close-on-exec.
func receiveCloexec(fd int, p, control []byte) (n, controlN, flags int, err error) {
	n, controlN, flags, _, err = unix.Recvmsg(fd, p, control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	return n, controlN, flags, err
}

// socketpair makes a connected pair of stream sockets, both blocking and close-on-exec.
func socketpair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}
