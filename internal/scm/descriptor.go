package scm

import (
	"net"
	"os"
	"syscall"
)

// Descriptor is an open file that the Go runtime does not poll. An [os.File] of a non-blocking socket is registered with
// the runtime's poller from its making to its end; a socket that another process is to serve, or that is only kept in case it
// comes back, must not be, and at thousands of sockets the system calls would count.
//
// It is not safe for concurrent use.
type Descriptor struct {
	fd int // -1: closed, or taken
}

// NewDescriptor takes ownership of an open descriptor.
func NewDescriptor(fd int) *Descriptor { return &Descriptor{fd: fd} }

// Duplicate makes a Descriptor, close-on-exec, of the open file behind c, which stays the caller's. The error is that of
// fcntl(2), EMFILE for one, or that of a closed c; on platforms without descriptors it is [errors.ErrUnsupported].
func Duplicate(c syscall.Conn) (*Descriptor, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	duplicate := -1
	var failed error
	if err := raw.Control(func(fd uintptr) { duplicate, failed = duplicateCloexec(int(fd)) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, os.NewSyscallError("fcntl", failed)
	}
	return NewDescriptor(duplicate), nil
}

// FD returns the number, which stays the Descriptor's. It is -1 once that was closed or taken.
func (d *Descriptor) FD() int { return d.fd }

// Take passes the number on: the caller has to close it. It returns -1 if that was done before.
func (d *Descriptor) Take() int {
	fd := d.fd
	d.fd = -1
	return fd
}

// File passes the open file on as an [os.File], which the caller has to close. It must not have been closed or taken.
func (d *Descriptor) File(name string) *os.File { return os.NewFile(uintptr(d.Take()), name) }

// Conn passes the open file on as a [net.Conn], which the caller has to close. It must not have been closed or taken, and is closed if it
// is no socket.
func (d *Descriptor) Conn() (net.Conn, error) {
	file := d.File("connection")
	conn, err := net.FileConn(file) // duplicates
	_ = file.Close()
	return conn, err
}

// Close closes what was not taken. Calling it again does nothing.
func (d *Descriptor) Close() error {
	if d.fd < 0 {
		return nil
	}
	return os.NewSyscallError("close", closeDescriptor(d.Take()))
}
