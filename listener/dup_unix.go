//go:build unix

package listener

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// dup duplicates the descriptor of c, close-on-exec, and not to 0, 1 or 2 if one of those is closed. It leaves the description alone.
func dup(c syscall.Conn, name string) (*os.File, error) {
	fd, err := dupFD(c)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// dupNonblock is dup, and makes the description non-blocking if it is not.
func dupNonblock(c syscall.Conn, name string) (*os.File, error) {
	fd, err := dupFD(c)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func dupFD(c syscall.Conn) (fd int, err error) {
	closed := control(c, func(from uintptr) {
		fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 3)
	})
	if closed != nil {
		return -1, closed
	}
	return fd, os.NewSyscallError("fcntl", err)
}

// closeOnExec keeps the descriptor from child processes. It may have come through exec itself.
func closeOnExec(c syscall.Conn) error {
	return control(c, func(fd uintptr) { unix.CloseOnExec(int(fd)) })
}
