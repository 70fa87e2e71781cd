package listener

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/segue-go/segue/internal/ledger"
)

// readNoted is inner.Read of a connection that is between two requests, and that may be taken back as long as it is. It first waits until
// there is something to read, by looking without taking; then it notes the use, and takes. So a process that is killed at any moment
// has noted all that it took, and has noted nothing of a connection from which nothing came. (To note the use, try to read, and take
// the note back would be a system call less, and wrong for each thread that was about to take it back.)
func readNoted(inner stream, slot *ledger.Slot, p []byte) (n int, err error) {
	raw, err := inner.SyscallConn()
	if err != nil {
		return 0, err
	}
	waitErr := raw.Read(func(fd uintptr) bool {
		var first [1]byte
		if _, _, err = retry(func() (int, unix.Sockaddr, error) {
			return unix.Recvfrom(int(fd), first[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		}); err == unix.EAGAIN {
			return false
		}
		slot.Use()
		n, _, err = retry(func() (int, unix.Sockaddr, error) { n, err := unix.Read(int(fd), p); return n, nil, err })
		return err != unix.EAGAIN // somebody else has taken it: nobody may
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case err != nil:
		return 0, &net.OpError{Op: "read", Net: inner.LocalAddr().Network(), Source: inner.LocalAddr(), Addr: inner.RemoteAddr(),
			Err: os.NewSyscallError("read", err)}
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// retry makes a system call again that a signal has interrupted.
func retry(call func() (int, unix.Sockaddr, error)) (n int, from unix.Sockaddr, err error) {
	for {
		if n, from, err = call(); err != unix.EINTR {
			return n, from, err
		}
	}
}
