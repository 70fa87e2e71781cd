// Package scm passes file descriptors over a connected stream Unix socket: sendmsg and recvmsg with SCM_RIGHTS,
// see unix(7) and recvmsg(2).
//
// It knows nothing of frames, tokens or acks. It promises that descriptors travel with the first byte of what [Send] was
// given, that [Receive] accepts exactly the announced number of them, that all are close-on-exec, and that none leaks on
// any path that ends in an error. [SendOnce] and [ReceiveOnce] are one system call each, for a protocol whose message is
// one sendmsg; [PeerUID] tells who is at the other end.
//
// One Send and one Receive may run on a connection at the same time. Two Sends may not, nor two Receives, and nothing
// else may write while a Send runs or read while a Receive runs: their bytes would mix.
//
// After an error the position in the byte stream is unknown, unless the error is that of a context and the payload (or
// the buffer) is one byte long: then nothing was moved. In general an error ends the connection.
//
// Linux, darwin and freebsd are supported. Elsewhere every function answers [errors.ErrUnsupported].
package scm

import (
	"errors"
	"os"
)

// MaxDescriptors is the largest number of descriptors that one message carries: SCM_MAX_FD of Linux, see unix(7).
const MaxDescriptors = 253

// These are wrapped by the errors of [Send] and [Receive].
var (
	// ErrTruncated reports MSG_CTRUNC: this process could not take all descriptors that the peer sent, most often
	// because its descriptor table is full (RLIMIT_NOFILE). Those that did arrive are closed.
	ErrTruncated = errors.New("control data truncated")

	// ErrDescriptorCount reports that another number of descriptors came than was announced, that descriptors came
	// with a later byte than the first, or that more than [MaxDescriptors] were asked for.
	ErrDescriptorCount = errors.New("wrong number of descriptors")

	// ErrControlMessage reports a control message that is malformed or of a type other than SCM_RIGHTS.
	ErrControlMessage = errors.New("unexpected control message")

	// ErrTooManyInFlight reports that this user has more descriptors sent and not yet received, over all sockets, than
	// RLIMIT_NOFILE of this process allows (ETOOMANYREFS in unix(7)), and that it stayed so until the context was done.
	ErrTooManyInFlight = errors.New("too many descriptors in flight")
	// ErrCutOff says that only a part of a message was sent.
	ErrCutOff = errors.New("message cut off")
)

// Descriptors owns received file descriptors, all close-on-exec, in the order in which the peer sent them.
// Close closes each one that was not taken. A nil *Descriptors is empty. It is not safe for concurrent use.
type Descriptors struct {
	fds []int // -1 once taken or closed
}

// Len is the number of descriptors received, whether taken or not.
func (d *Descriptors) Len() int {
	if d == nil {
		return 0
	}
	return len(d.fds)
}

// Take passes the ownership of descriptor i to the caller, who has to close it. It returns -1 if that descriptor was
// taken or closed before, or if there is none at i.
//
// The descriptor shares its open file description, with file offset and O_NONBLOCK, with the peer's.
func (d *Descriptors) Take(i int) int {
	if i < 0 || i >= d.Len() {
		return -1
	}
	fd := d.fds[i]
	d.fds[i] = -1
	return fd
}

// Close closes what was not taken and returns the errors of close(2), joined. Calling it again does nothing.
//
// It can block for as long as close(2) does on the last reference to a file, for example on a TCP connection with
// SO_LINGER.
func (d *Descriptors) Close() error {
	var errs []error
	for i := range d.Len() {
		if fd := d.Take(i); fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", closeDescriptor(fd)))
		}
	}
	return errors.Join(errs...)
}
