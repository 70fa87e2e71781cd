//go:build linux || darwin || freebsd

package listener

import "golang.org/x/sys/unix"

// pending reports whether bytes wait to be read. It takes none.
func pending(conn stream) (waiting bool) {
	_ = control(conn, func(fd uintptr) { // an error is for the Read to find
		var first [1]byte
		n, _, err := unix.Recvfrom(int(fd), first[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		waiting = err == nil && n > 0
	})
	return waiting
}
