//go:build linux || darwin || freebsd

package scm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sendFlags: MSG_DONTWAIT because O_NONBLOCK belongs to the open file description, which other processes share and may
// clear; the runtime poller waits instead. MSG_NOSIGNAL because the error says enough: a program that asked [os/signal]
// for SIGPIPE should not get it for a peer that went away.
const sendFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

// controlSize holds, in bytes, any control data that a kernel delivers at once: 253 descriptors of 4 bytes with headers
// and credentials on Linux; on the BSDs a sender's control data is limited to 2 KiB (MCLBYTES). So a peer that sends
// more than announced is caught by counting, with everything it sent in hand.
const controlSize = 2048

// A send that fails with ETOOMANYREFS is tried again after these pauses.
const (
	shortestPause = time.Millisecond
	longestPause  = 50 * time.Millisecond
)

// Send writes payload, which is one byte at least, with fds attached to its first byte, and returns when the kernel has
// taken all of it. The descriptors stay the caller's and may be closed as soon as Send returns: the message holds its
// own references.
//
// A full socket buffer and ETOOMANYREFS are waited out until ctx is done. That error wraps the reason of ctx, and in
// the second case [ErrTooManyInFlight]; it is of [ErrCutOff] if a part was sent. A wait that ctx ended leaves conn without write deadline; one that the
// caller had set before is respected and else left alone. Errors of sendmsg(2) are wrapped: EPIPE if the peer is gone,
// ECONNRESET if it goes just now with data unread, EBADF if one of fds is not open. More than [MaxDescriptors] are
// refused with [ErrDescriptorCount].
func Send(ctx context.Context, conn *net.UnixConn, payload []byte, fds []int) error {
	if err := send(ctx, conn, payload, fds); err != nil {
		return opError("send", conn, err)
	}
	return nil
}

func send(ctx context.Context, conn *net.UnixConn, payload []byte, fds []int) error {
	if len(payload) == 0 {
		return errors.New("empty payload: descriptors need a byte to travel with")
	}
	if len(fds) > MaxDescriptors {
		return fmt.Errorf("%w: %d, the limit is %d", ErrDescriptorCount, len(fds), MaxDescriptors)
	}
	raw, release, err := begin(ctx, conn, conn.SetWriteDeadline)
	if err != nil {
		return err
	}
	defer release()

	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	var pause time.Duration // more than 0 after ETOOMANYREFS
	whole := len(payload)
	for len(payload) > 0 {
		n, err := sendmsg(raw, payload, rights)
		if errors.Is(err, unix.ETOOMANYREFS) {
			// The limit is on the user, whose descriptors can be in flight on any socket of any process. They leave the
			// count when they are received or when their socket is closed; no event tells, so time has to.
			pause = min(max(2*pause, shortestPause), longestPause)
			if err = sleep(ctx, pause); err == nil {
				continue
			}
		}
		err = interrupted(ctx, err)
		if err != nil && len(payload) < whole {
			return fmt.Errorf("%w: after %d of %d bytes: %w", ErrCutOff, whole-len(payload), whole, err)
		}
		if pause > 0 && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return fmt.Errorf("%w: %w", ErrTooManyInFlight, err)
		}
		if err != nil {
			return err
		}
		payload, rights, pause = payload[n:], nil, 0
	}
	return nil
}

// Receive fills buf, which is one byte at least. Exactly want descriptors, 0 to [MaxDescriptors], have to come with its
// first byte and none with a later one. They belong to the returned Descriptors, which are never nil if the error is.
// On an error all that came are closed.
//
// The error is [io.EOF] if the peer closed before the first byte, and wraps [io.ErrUnexpectedEOF] if it closed later,
// [ErrDescriptorCount], [ErrTruncated] or [ErrControlMessage] if the peer or this process's descriptor table is not as
// announced, the reason of ctx, or the error of recvmsg(2). A peer that closes with unread data in its own receive
// buffer shows as ECONNRESET in place of the end of file.
//
// A wait that ctx ended leaves conn without read deadline; one that the caller had set before is respected and else
// left alone.
func Receive(ctx context.Context, conn *net.UnixConn, buf []byte, want int) (*Descriptors, error) {
	return NewReceiver(conn).Receive(ctx, time.Time{}, nil, buf, want)
}

// Receiver is what many calls of Receive on one connection share, so that they need not allocate it. One goroutine at a time uses it.
type Receiver struct {
	conn    *net.UnixConn
	raw     syscall.RawConn // nil before the first call
	control []byte
	message struct { // of the recvmsg under way
		p           []byte
		n, controlN int
		flags       int
		wait        bool
		err         error
	}
	step func(fd uintptr) (done bool) // receiveMessage: made once
}

// NewReceiver makes a Receiver. The connection stays the caller's.
func NewReceiver(conn *net.UnixConn) *Receiver {
	r := &Receiver{conn: conn, control: make([]byte, controlSize)}
	r.step = r.receiveMessage
	return r
}

// Receive is the function Receive, which waits until the time until, too, unless that is zero: it then fails with cause.
func (r *Receiver) Receive(ctx context.Context, until time.Time, cause error, buf []byte, want int) (*Descriptors, error) {
	d := new(Descriptors)
	err := r.receive(ctx, until, cause, buf, want, d)
	if err == nil {
		return d, nil
	}
	_ = d.Close() // the first error is the one to tell
	if err == io.EOF {
		return nil, io.EOF
	}
	return nil, opError("receive", r.conn, err)
}

// Some waits like Receive until there is something to read, and makes one recvmsg(2) that returns data: as much as there is and buf has room
// for, but of what was sent with descriptors no more than one message, the last one. It accepts any number of descriptors, and is like Receive in all else.
func (r *Receiver) Some(ctx context.Context, until time.Time, cause error, buf []byte) (n int, d *Descriptors, err error) {
	d = new(Descriptors)
	if n, err = r.some(ctx, until, cause, buf, d); err == nil {
		return n, d, nil
	}
	_ = d.Close() // the first error is the one to tell
	if err == io.EOF {
		return 0, nil, io.EOF
	}
	return 0, nil, opError("receive", r.conn, err)
}

func (r *Receiver) some(ctx context.Context, until time.Time, cause error, buf []byte, d *Descriptors) (int, error) {
	if len(buf) == 0 {
		return 0, errors.New("empty buffer: descriptors need a byte to travel with")
	}
	if ctx.Err() != nil {
		return 0, reason(ctx)
	}
	n, err := r.recvmsg(ctx, until, cause, buf, d)
	switch {
	case err != nil:
		return 0, err
	case n == 0 && d.Len() == 0:
		return 0, io.EOF
	default:
		return n, nil
	}
}

// receive adds what arrives to d at once, also if it fails.
func (r *Receiver) receive(ctx context.Context, until time.Time, cause error, buf []byte, want int, d *Descriptors) error {
	if len(buf) == 0 {
		return errors.New("empty buffer: descriptors need a byte to travel with")
	}
	if want < 0 || want > MaxDescriptors {
		return fmt.Errorf("%w: %d, the limit is %d", ErrDescriptorCount, want, MaxDescriptors)
	}
	if ctx.Err() != nil {
		return reason(ctx)
	}
	// Before descriptors the first byte is read alone. Linux ends a recvmsg after a message that carries descriptors, but not before it:
	// plain bytes and the descriptors of a later message would arrive as one, and nothing would show to which byte the
	// descriptors belong.
	first := len(buf)
	if want > 0 {
		first = 1
	}
	n, err := r.recvmsg(ctx, until, cause, buf[:first], d)
	switch {
	case err != nil:
		return err
	case n == 0 && d.Len() == 0:
		return io.EOF
	case n == 0 || d.Len() != want:
		return fmt.Errorf("%w: %d with the first byte, want %d", ErrDescriptorCount, d.Len(), want)
	}
	for buf = buf[n:]; len(buf) > 0; buf = buf[n:] {
		n, err = r.recvmsg(ctx, until, cause, buf, d)
		switch {
		case err != nil:
			return err
		case d.Len() != want:
			return fmt.Errorf("%w: %d after the first byte", ErrDescriptorCount, d.Len()-want)
		case n == 0:
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

// Pair makes a connected stream socketpair. Local is registered with the runtime poller. Remote is close-on-exec,
// blocking, and meant to be given to another process, as in [os/exec.Cmd.ExtraFiles]. The caller closes both.
func Pair() (local *net.UnixConn, remote *os.File, err error) {
	fds, err := socketpair()
	if err != nil {
		return nil, nil, fmt.Errorf("scm: pair: %w", os.NewSyscallError("socketpair", err))
	}
	here := os.NewFile(uintptr(fds[0]), "scm-local")
	remote = os.NewFile(uintptr(fds[1]), "scm-remote")
	conn, err := net.FileConn(here) // registers a duplicate
	_ = here.Close()
	local, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("scm: pair: %w", errors.Join(err, remote.Close()))
	}
	return local, remote, nil
}

// begin gives access to the descriptor of conn, and lets ctx interrupt calls that wait for it until release is called.
func begin(ctx context.Context, conn *net.UnixConn, setDeadline func(time.Time) error) (raw syscall.RawConn, release func(), err error) {
	if ctx.Err() != nil {
		return nil, nil, reason(ctx)
	}
	raw, err = conn.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	return raw, interruptible(ctx, setDeadline), nil
}

// interruptible lets ctx interrupt calls that wait until release is called.
func interruptible(ctx context.Context, setDeadline func(time.Time) error) (release func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = setDeadline(time.Unix(1, 0)) // in the past; fails only on a closed conn, which does not wait either
	})
	return func() {
		// If ctx is done just now, its function runs in a goroutine of its own and may set the deadline after this
		// call is over: the next one would fail for no reason. So wait for it, then clear what it has set.
		if !stop() {
			<-fired
			_ = setDeadline(time.Time{})
		}
	}
}

// sendmsg writes what fits, waiting until at least one byte does.
func sendmsg(raw syscall.RawConn, p, control []byte) (n int, err error) {
	waitErr := raw.Write(func(fd uintptr) bool {
		for {
			n, err = sendNonblock(int(fd), p, control)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return n, os.NewSyscallError("sendmsg", err)
}

// recvmsg reads what there is, waiting until at least one byte is, and adds each descriptor that arrives to d, also if
// it fails.
func (r *Receiver) recvmsg(ctx context.Context, until time.Time, cause error, p []byte, d *Descriptors) (n int, err error) {
	if r.raw == nil {
		if r.raw, err = r.conn.SyscallConn(); err != nil {
			return 0, err
		}
	}
	if ctx.Done() == nil && until.IsZero() {
		return r.attempt(p, true, d)
	}
	// Mostly it is there already, and nobody has to be told how to interrupt this.
	n, err = r.attempt(p, false, d)
	if !errors.Is(err, unix.EAGAIN) {
		return n, err
	}
	if !until.IsZero() {
		bounded, cancel := context.WithDeadlineCause(ctx, until, cause)
		defer cancel()
		ctx = bounded
	}
	defer interruptible(ctx, r.conn.SetReadDeadline)()
	n, err = r.attempt(p, true, d)
	return n, interrupted(ctx, err)
}

func (r *Receiver) attempt(p []byte, wait bool, d *Descriptors) (int, error) {
	m := &r.message
	m.p, m.wait = p, wait
	waitErr := r.raw.Read(r.step)
	m.p = nil
	if waitErr != nil {
		return 0, waitErr
	}
	if m.err == unix.EAGAIN {
		return 0, unix.EAGAIN
	}
	fds, parseErr := parseControl(r.control[:m.controlN])
	d.fds = append(d.fds, fds...)
	switch {
	case m.err != nil:
		return 0, os.NewSyscallError("recvmsg", m.err)
	case m.flags&unix.MSG_CTRUNC != 0:
		return m.n, fmt.Errorf("%w: %d descriptors arrived", ErrTruncated, len(fds))
	default:
		return m.n, parseErr
	}
}

func (r *Receiver) receiveMessage(fd uintptr) (done bool) {
	m := &r.message
	for {
		m.n, m.controlN, m.flags, m.err = receiveCloexec(int(fd), m.p, r.control)
		if m.err != unix.EINTR {
			return m.err != unix.EAGAIN || !m.wait
		}
	}
}

// sleep waits for a time or until ctx is done, and then returns its reason.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return reason(ctx)
	}
}

// interrupted replaces the error of a wait that ctx ended by the reason of ctx.
func interrupted(ctx context.Context, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return reason(ctx)
	}
	return err
}

// reason is why ctx is done, as an error that is both its Err and its cause.
func reason(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// opError names the operation and the socket, in place of those that [syscall.RawConn] names.
func opError(op string, conn *net.UnixConn, err error) error {
	if inner, ok := err.(*net.OpError); ok {
		err = inner.Err
	}
	return &net.OpError{Op: op, Net: "unix", Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: err}
}

func closeDescriptor(fd int) error {
	return unix.Close(fd)
}

// duplicateCloexec keeps away from the numbers 0 to 2, which programs take for granted.
func duplicateCloexec(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
}
