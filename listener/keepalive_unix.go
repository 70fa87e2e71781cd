//go:build linux || freebsd || darwin

package listener

import "golang.org/x/sys/unix"

var (
	optKeepAlive    = sockopt{unix.SOL_SOCKET, unix.SO_KEEPALIVE}
	optKeepIdle     = sockopt{unix.IPPROTO_TCP, tcpKeepIdle}
	optKeepInterval = sockopt{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}
	optKeepCount    = sockopt{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}
	optNoDelay      = sockopt{unix.IPPROTO_TCP, unix.TCP_NODELAY}
)

func getsockopt(fd uintptr, opt sockopt) (value int, ok bool) {
	value, err := unix.GetsockoptInt(int(fd), opt.level, opt.name)
	return value, err == nil
}
