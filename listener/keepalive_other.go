//go:build !(linux || freebsd || darwin)

package listener

var optKeepAlive, optKeepIdle, optKeepInterval, optKeepCount, optNoDelay sockopt

func getsockopt(uintptr, sockopt) (int, bool) { return 0, false }
