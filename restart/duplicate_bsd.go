//go:build darwin || freebsd

package restart

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// duplicateTo makes to refer to what from does. No child is forked between dup2(2) and close-on-exec.
func duplicateTo(from, to int) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := unix.Dup2(from, to); err != nil {
		return err
	}
	unix.CloseOnExec(to)
	return nil
}
