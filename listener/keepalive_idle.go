//go:build linux || freebsd

package listener

import "golang.org/x/sys/unix"

const tcpKeepIdle = unix.TCP_KEEPIDLE // tcp(7)
