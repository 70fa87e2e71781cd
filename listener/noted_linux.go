package listener

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/segue-go/segue/internal/ledger"
)

// readNoted is inner.Read of a connection that is between two requests, and that may be taken back as long as it is: the use is noted
// before the kernel is asked for bytes, and taken back when it has none. A process that is killed at any moment has noted all
// that it took.
func readNoted(inner stream, slot *ledger.Slot, p []byte) (n int, err error) {
	raw, err := inner.SyscallConn()
	if err != nil {
		return 0, err
	}
	waitErr := raw.Read(func(fd uintptr) bool {
		before := slot.Use()
		for {
			n, err = unix.Read(int(fd), p)
			if err != unix.EINTR {
				break
			}
		}
		if err == unix.EAGAIN {
			slot.Restore(before)
			return false
		}
		return true
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
