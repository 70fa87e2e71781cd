package listener

import (
	"io"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/segue-go/segue/internal/ledger"
)

// readNoted is inner.Read of a connection that is between two requests, and that may be taken back as long as it is. It first waits until
// there is something to read, by looking without taking; then it notes the use, and takes. So a process that is killed at any moment
// has noted all that it took, and has noted nothing of a connection from which nothing came. (To note the use, try to read, and take
// the note back would be a system call less, and wrong for each thread that was about to take it back.)
//
// An adopted connection waits here for as long as it is idle, with all of net/http's frames below. With those of unix.Recvfrom on top they
// do not fit into 4 KiB, and every such connection would have a stack of 8.
func readNoted(inner stream, slot *ledger.Slot, p []byte) (n int, err error) {
	raw, err := inner.SyscallConn()
	if err != nil {
		return 0, err
	}
	waitErr := raw.Read(func(fd uintptr) bool {
		if !readable(int(fd)) {
			return false
		}
		slot.Use()
		for n, err = unix.Read(int(fd), p); err == unix.EINTR; {
			n, err = unix.Read(int(fd), p)
		}
		return err != unix.EAGAIN // somebody else has taken it: nobody may
	})
	if waitErr != nil {
		return 0, waitErr
	}
	if err != nil {
		return 0, readError(inner, err)
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// readError is how package net puts an error of read(2).
//
//go:noinline
func readError(inner stream, err error) error {
	return &net.OpError{Op: "read", Net: inner.LocalAddr().Network(), Source: inner.LocalAddr(), Addr: inner.RemoteAddr(),
		Err: os.NewSyscallError("read", err)}
}

// readable reports whether a read would not have to wait: there are bytes, the end, or an error. It is recvfrom(2), which does not block.
func readable(fd int) bool {
	var first byte
	for {
		_, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&first)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		if err != unix.EINTR {
			return err != unix.EAGAIN
		}
	}
}
