package listener

import (
	"net"
	"syscall"
	"time"
)

// acceptedKeepAlive is what must be set on a connection that an inherited listener accepted, for it to be as if ListenConfig had opened the
// listener. Nil means nothing.
//
// net.FileListener has a zero ListenConfig: accepted connections get keepalive with package net's default times
// (net/tcpsock.go: newTCPConn). What ListenConfig says to leave unchanged, by a negative value, is taken from the listening socket,
// from where the kernel copies it to an accepted one, and where a Control function may have set it.
func acceptedKeepAlive(lc *net.ListenConfig, inner acceptor) *net.KeepAliveConfig {
	tcp, ok := inner.(*net.TCPListener)
	if !ok {
		return nil
	}
	want := lc.KeepAliveConfig
	if !want.Enable && lc.KeepAlive >= 0 {
		want = net.KeepAliveConfig{Enable: true, Idle: lc.KeepAlive}
	}
	if want == (net.KeepAliveConfig{Enable: true}) {
		return nil
	}
	if want.Enable && want.Idle >= 0 && want.Interval >= 0 && want.Count >= 0 {
		return &want
	}
	socket := socketKeepAlive(tcp)
	if !want.Enable {
		return &socket
	}
	if want.Idle < 0 {
		want.Idle = socket.Idle
	}
	if want.Interval < 0 {
		want.Interval = socket.Interval
	}
	if want.Count < 0 {
		want.Count = socket.Count
	}
	return &want
}

// socketKeepAlive reads the keepalive settings of a socket. What the platform does not tell is -1: unchanged.
func socketKeepAlive(c syscall.Conn) net.KeepAliveConfig {
	config := net.KeepAliveConfig{Idle: -1, Interval: -1, Count: -1}
	_ = control(c, func(fd uintptr) {
		if on, ok := getsockopt(fd, optKeepAlive); ok {
			config.Enable = on != 0
		}
		if s, ok := getsockopt(fd, optKeepIdle); ok {
			config.Idle = time.Duration(s) * time.Second
		}
		if s, ok := getsockopt(fd, optKeepInterval); ok {
			config.Interval = time.Duration(s) * time.Second
		}
		if n, ok := getsockopt(fd, optKeepCount); ok {
			config.Count = n
		}
	})
	return config
}

// What package net sets for keepalive by default (net/tcpsockopt_unix.go: 15 s, 15 s, 9).
const (
	defaultKeepAlive      = 15 * time.Second
	defaultKeepAliveCount = 9
)

// sockopt is a socket option whose value is an int.
type sockopt struct{ level, name int }
