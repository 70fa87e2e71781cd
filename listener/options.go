package listener

import (
	"net"
	"os"
	"time"
)

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

// options are those of the connection now. To ask the kernel takes a system call for each, which counts when thousands of connections
// move; but those that a listener accepts all have the same, as long as nobody changes them.
func (c *Conn) options() ConnOptions {
	switch {
	case c.touched.Load():
		return connOptions(c.inner)
	case c.known != nil:
		return *c.known
	}
	if accepted := c.roster.options.Load(); accepted != nil {
		return *accepted
	}
	options := connOptions(c.inner)
	c.roster.options.Store(&options)
	return options
}

// shared returns what many connections can point to, if o is what most have.
func (o ConnOptions) shared() *ConnOptions {
	if o == defaultConnOptions {
		return &defaultConnOptions
	}
	return &o
}

// What follows is [net.TCPConn]'s, and notes that the options may have changed.

// SetNoDelay is that of [net.TCPConn].
func (c *Conn) SetNoDelay(on bool) error {
	c.touched.Store(true)
	return c.buffersWriter.SetNoDelay(on)
}

// SetKeepAlive is that of [net.TCPConn].
func (c *Conn) SetKeepAlive(on bool) error {
	c.touched.Store(true)
	return c.buffersWriter.SetKeepAlive(on)
}

// SetKeepAlivePeriod is that of [net.TCPConn].
func (c *Conn) SetKeepAlivePeriod(period time.Duration) error {
	c.touched.Store(true)
	return c.buffersWriter.SetKeepAlivePeriod(period)
}

// SetKeepAliveConfig is that of [net.TCPConn].
func (c *Conn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	c.touched.Store(true)
	return c.buffersWriter.SetKeepAliveConfig(config)
}

// File is that of [net.TCPConn]. On a Unix socket it works, too.
func (c *Conn) File() (*os.File, error) {
	c.touched.Store(true)
	return c.buffersWriter.File()
}
