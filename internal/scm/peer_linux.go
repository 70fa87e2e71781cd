package scm

import "golang.org/x/sys/unix"

// peerUID is the effective uid with which the peer connected, or listened (SO_PEERCRED in unix(7)).
func peerUID(fd int) (int, error) {
	credentials, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return -1, err
	}
	return int(credentials.Uid), nil
}
