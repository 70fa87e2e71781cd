//go:build darwin || freebsd

package scm

import "golang.org/x/sys/unix"

const solLocal = 0 // SOL_LOCAL of sys/un.h

// peerUID is the effective uid with which the peer connected, or listened (LOCAL_PEERCRED in unix(4)).
func peerUID(fd int) (int, error) {
	credentials, err := unix.GetsockoptXucred(fd, solLocal, unix.LOCAL_PEERCRED)
	if err != nil {
		return -1, err
	}
	return int(credentials.Uid), nil
}
