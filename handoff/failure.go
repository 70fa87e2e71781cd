package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/segue-go/segue/internal/scm"
)

// Why a descriptor was not handed over. ErrTokenMismatch, ErrRefused and their neighbours in this package are failures too.
var (
	// ErrUnsupported says that this platform cannot pass descriptors. It is errors.ErrUnsupported.
	ErrUnsupported = errors.ErrUnsupported
	// ErrPermission says that the system does not let this process reach the peer, or pass this descriptor to it. It is
	// fs.ErrPermission.
	ErrPermission = fs.ErrPermission
	// ErrUnavailable says that nobody is at the peer's socket: missing, refused, reset, broken pipe, not connected.
	ErrUnavailable = errors.New("peer's socket unavailable")
	// ErrWouldBlock says that the peer does not read: what is sent to it would have to wait.
	ErrWouldBlock = errors.New("would block")
	// ErrSendFailed says that sendmsg(2) failed in another way, or took a part of the token only (io.ErrShortWrite).
	ErrSendFailed = errors.New("send failed")
	// ErrAckTimeout says that the peer did not acknowledge in time.
	ErrAckTimeout = errors.New("not acknowledged in time")
	// ErrDescriptorPressure says that too many descriptors are open, in flight, or wait to be sent.
	ErrDescriptorPressure = errors.New("descriptor pressure")
	// ErrPolicy says that no attempt was made, because a Policy said so.
	ErrPolicy = errors.New("handoff not attempted")
)

// Failure is one attempt that failed on the way to the peer. The sender still has its descriptor.
type Failure struct {
	Sentinel   error  // which of this package's errors it is
	Descriptor int    // the sender's number for it, -1 if it never got that far
	Socket     string // the peer's address
	// Reached says that a duplicate of the descriptor is with the peer, and only the peer can close it. As long as that
	// peer may still adopt it, the sender must not read or write the connection: that would be two owners.
	Reached bool
	Cause   error // what the system said; errors.As finds the syscall.Errno in it
}

// Error implements error.
func (f *Failure) Error() string {
	text := fmt.Sprintf("hand over to %q: %v", f.Socket, f.Sentinel)
	if f.Descriptor >= 0 {
		text = fmt.Sprintf("hand over descriptor %d to %q: %v", f.Descriptor, f.Socket, f.Sentinel)
	}
	if f.Reached {
		text += ", but the descriptor reached the peer"
	}
	if f.Cause != nil {
		text += ": " + f.Cause.Error()
	}
	return text
}

// Unwrap returns the sentinel and the cause.
func (f *Failure) Unwrap() []error {
	if f.Cause == nil {
		return []error{f.Sentinel}
	}
	return []error{f.Sentinel, f.Cause}
}

// Reached reports whether err tells of a descriptor that is with the peer all the same.
func Reached(err error) bool {
	var failure *Failure
	return errors.As(err, &failure) && failure.Reached
}

// dialFailure types the error of a connect(2). Nothing was sent.
func dialFailure(socket string, err error) *Failure {
	sentinel := sentinelFor(err)
	if sentinel == ErrSendFailed {
		sentinel = ErrUnavailable // whatever it was, nobody can be reached there
	}
	return &Failure{Sentinel: sentinel, Descriptor: -1, Socket: socket, Cause: err}
}

// sendFailure types the outcome of the one sendmsg(2) of an attempt, nil for success. The descriptor travels with the
// first byte: a kernel that took some of them took it too.
func sendFailure(socket string, descriptor, taken int, err error) error {
	failure := &Failure{Descriptor: descriptor, Socket: socket, Reached: taken > 0}
	switch {
	case err != nil:
		failure.Sentinel, failure.Cause = sentinelFor(err), err
	case taken < TokenSize:
		failure.Sentinel, failure.Cause = ErrSendFailed, fmt.Errorf("%w: %d of %d bytes", io.ErrShortWrite, taken, TokenSize)
	default:
		return nil
	}
	return failure
}

// sentinelFor sorts the errors of connect(2) and sendmsg(2).
func sentinelFor(err error) error {
	for _, known := range []struct {
		sentinel error
		causes   []error
	}{
		// The BSDs say ENOBUFS or EMSGSIZE where Linux says EAGAIN, of a message of 16 bytes.
		{ErrWouldBlock, []error{syscall.EAGAIN, syscall.ENOBUFS, syscall.EMSGSIZE, context.DeadlineExceeded}},
		{ErrDescriptorPressure, []error{syscall.EMFILE, syscall.ENFILE, syscall.ETOOMANYREFS, scm.ErrTooManyInFlight}},
		{ErrUnavailable, []error{
			syscall.ENOENT, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENOTCONN, syscall.ESHUTDOWN,
		}},
		{ErrPermission, []error{fs.ErrPermission}},
		{ErrUnsupported, []error{errors.ErrUnsupported}},
	} {
		for _, cause := range known.causes {
			if errors.Is(err, cause) {
				return known.sentinel
			}
		}
	}
	return ErrSendFailed
}
