package restart

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// holdPeer takes hold of the process at the other end of a connected Unix socket, and returns its effective uid: both as
// the kernel noted them when it connected (SO_PEERCRED and SO_PEERPIDFD, unix(7)).
func holdPeer(conn *net.UnixConn) (peer *process, uid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var credentials *unix.Ucred
	pidfd := -1
	controlErr := raw.Control(func(fd uintptr) {
		if credentials, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			err = os.NewSyscallError("getsockopt SO_PEERCRED", err)
			return
		}
		if pidfd, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD); err == unix.ENOPROTOOPT {
			// Before Linux 6.5. The number may have been given to another process since, if the peer has died since.
			pidfd, err = unix.PidfdOpen(int(credentials.Pid), 0)
		}
		err = os.NewSyscallError("pidfd of peer", err)
	})
	if controlErr != nil {
		return nil, 0, controlErr
	}
	if err != nil {
		return nil, 0, fmt.Errorf("identify peer: %w", err)
	}
	unix.CloseOnExec(pidfd)
	return &process{pid: int(credentials.Pid), pidfd: pidfd}, int(credentials.Uid), nil
}

const canTakeOver = true
