//go:build linux || darwin || freebsd

package scm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Supported says whether this platform can pass descriptors.
const Supported = true

// SendOnce makes one sendmsg(2) that never waits, and returns how many bytes of payload the kernel took. Unless that is
// 0, the descriptors are with the peer, whatever the error says. They stay the caller's too.
//
// It does not wait for another writer of conn either: that nobody else writes is the caller's business. The errors are
// those of sendmsg(2), EAGAIN for a full buffer.
func SendOnce(conn *net.UnixConn, payload []byte, fds []int) (n int, err error) {
	if len(payload) == 0 {
		return 0, opError("send", conn, errors.New("empty payload: descriptors need a byte to travel with"))
	}
	if len(fds) > MaxDescriptors {
		return 0, opError("send", conn, fmt.Errorf("%w: %d, the limit is %d", ErrDescriptorCount, len(fds), MaxDescriptors))
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, opError("send", conn, err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	// Not raw.Write: that queues behind a Write of another goroutine, which may wait for as long as the peer likes.
	controlErr := raw.Control(func(fd uintptr) {
		for {
			if n, err = sendNonblock(int(fd), payload, rights); err != unix.EINTR {
				return
			}
		}
	})
	if controlErr != nil {
		return 0, opError("send", conn, controlErr)
	}
	if err != nil {
		return 0, opError("send", conn, os.NewSyscallError("sendmsg", err))
	}
	return n, nil
}

// ReceiveOnce waits until there is something to read and makes one recvmsg(2) that returns data. It accepts any number of
// descriptors, 0 too; they belong to the returned Descriptors, which are never nil if the error is. On an error all that
// came are closed.
//
// Descriptors are a barrier in the stream (unix(7)): one recvmsg ends after the message that carried some, even if more
// bytes are there. So what one SendOnce has sent with descriptors is received as a whole and alone, provided that all
// before it was received, and that buf has room for it. The errors are those of [Receive].
func ReceiveOnce(ctx context.Context, conn *net.UnixConn, buf []byte) (n int, d *Descriptors, err error) {
	return NewReceiver(conn).Some(ctx, time.Time{}, nil, buf)
}
