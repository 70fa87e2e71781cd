package listener

import "net"

// ConnOptions are the options of a TCP connection that package net sets when it makes a connection of a descriptor, whatever they
// were before (net/tcpsock.go, newTCPConn). The zero value is that of a Unix socket, which has none of them.
type ConnOptions struct {
	TCP       bool
	NoDelay   bool
	KeepAlive net.KeepAliveConfig
}

// defaultConnOptions is what package net sets.
var defaultConnOptions = ConnOptions{
	TCP: true, NoDelay: true,
	KeepAlive: net.KeepAliveConfig{Enable: true, Idle: defaultKeepAlive, Interval: defaultKeepAlive, Count: defaultKeepAliveCount},
}

func connOptions(inner stream) ConnOptions {
	tcp, ok := inner.(*net.TCPConn)
	if !ok {
		return ConnOptions{}
	}
	options := ConnOptions{TCP: true, NoDelay: true, KeepAlive: socketKeepAlive(tcp)}
	_ = control(tcp, func(fd uintptr) {
		if on, ok := getsockopt(fd, optNoDelay); ok {
			options.NoDelay = on != 0
		}
	})
	return options
}

// apply sets them on a connection that package net has just made. Without one of them it works as well.
func (o ConnOptions) apply(conn stream) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok || !o.TCP || o == defaultConnOptions {
		return
	}
	if !o.NoDelay {
		_ = tcp.SetNoDelay(false)
	}
	_ = tcp.SetKeepAliveConfig(o.KeepAlive)
}
