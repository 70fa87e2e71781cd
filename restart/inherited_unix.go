//go:build linux || darwin || freebsd

package restart

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tableflipEnvironment makes tableflip.New believe that a parent left it a pipe to write to and one to read from.
	tableflipEnvironment = "TABLEFLIP_HAS_PARENT_7DIU3"
	tableflipWrite       = 3
	tableflipRead        = 4

	// tableflipPatience is how long a predecessor may take to say what it passes on. It does so right after its fork.
	tableflipPatience = 10 * time.Second
)

// checkTableflipEnvironment keeps tableflip.New from waiting forever on descriptors that are no parent's: a shell that was
// started by a plain tableflip service inherits the variable, and perhaps the pipes too, long since read empty.
func checkTableflipEnvironment() error {
	value, set := os.LookupEnv(tableflipEnvironment)
	if !set || value == "" {
		return nil
	}
	complain := func(format string, arguments ...any) error {
		return fmt.Errorf("%w: %s=%.32q is set, but %s: unset it to start a first generation",
			ErrInherited, tableflipEnvironment, value, fmt.Sprintf(format, arguments...))
	}
	for _, fd := range []int{tableflipWrite, tableflipRead} {
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil {
			return complain("descriptor %d is not open (%v)", fd, err)
		}
		if stat.Mode&unix.S_IFMT != unix.S_IFIFO {
			return complain("descriptor %d is not a pipe", fd)
		}
	}
	waiting := []unix.PollFd{{Fd: tableflipRead, Events: unix.POLLIN}}
	deadline := time.Now().Add(tableflipPatience)
	for {
		n, err := unix.Poll(waiting, int(max(time.Until(deadline), 0).Milliseconds()))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return complain("descriptor %d cannot be read (%v)", tableflipRead, err)
		case n == 0:
			return complain("nothing came from the parent within %v", tableflipPatience)
		case waiting[0].Revents&unix.POLLIN == 0:
			// It died before it had said anything. What it had, nobody has any more, so this is a first generation.
			for _, fd := range []int{tableflipWrite, tableflipRead} {
				_ = unix.Close(fd)
			}
			return os.Unsetenv(tableflipEnvironment)
		}
		return nil
	}
}

// closeTableflipLeaks keeps what tableflip got from its parent from this service's own child processes: tableflip neither
// unsets the variable nor marks its two pipes close-on-exec (parent.go, newParent).
func closeTableflipLeaks() {
	if os.Getenv(tableflipEnvironment) == "" {
		return
	}
	unix.CloseOnExec(tableflipWrite)
	unix.CloseOnExec(tableflipRead)
	_ = os.Unsetenv(tableflipEnvironment)
}
