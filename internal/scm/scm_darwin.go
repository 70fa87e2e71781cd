package scm

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// scmPidfd is a control message of Linux only: no message has this type.
const scmPidfd = -1

// sendNonblock is a sendmsg(2) that never blocks. XNU heeds MSG_DONTWAIT when it receives, but when it sends only the
// state of the socket counts (sosendcheck in bsd/kern/uipc_socket.c), so that has to be set right first.
func sendNonblock(fd int, p, control []byte) (n int, err error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return 0, err
	}
	return unix.SendmsgN(fd, p, control, nil, sendFlags)
}

// receiveCloexec is a recvmsg(2) that never blocks and whose descriptors are close-on-exec. Darwin has no
// MSG_CMSG_CLOEXEC, so the lock keeps this process from forking before the flag is set.
func receiveCloexec(fd int, p, control []byte) (n, controlN, flags int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n, controlN, flags, _, err = unix.Recvmsg(fd, p, control, unix.MSG_DONTWAIT)
	fds, _ := parseControl(control[:controlN])
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return n, controlN, flags, err
}

// socketpair makes a connected pair of stream sockets, both blocking and close-on-exec.
func socketpair() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}
