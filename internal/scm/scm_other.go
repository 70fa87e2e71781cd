//go:build !linux && !darwin && !freebsd

package scm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"
)

// Supported says whether this platform can pass descriptors.
const Supported = false

var errPlatform = fmt.Errorf("scm: passing descriptors on %s: %w", runtime.GOOS, errors.ErrUnsupported)

// Send is not supported on this platform.
func Send(ctx context.Context, conn *net.UnixConn, payload []byte, fds []int) error {
	return errPlatform
}

// Receive is not supported on this platform.
func Receive(ctx context.Context, conn *net.UnixConn, buf []byte, want int) (*Descriptors, error) {
	return nil, errPlatform
}

// Receiver is not supported on this platform.
type Receiver struct{}

// NewReceiver is not supported on this platform.
func NewReceiver(conn *net.UnixConn) *Receiver { return new(Receiver) }

// Receive is not supported on this platform.
func (*Receiver) Receive(ctx context.Context, until time.Time, cause error, buf []byte, want int) (*Descriptors, error) {
	return nil, errPlatform
}

// Some is not supported on this platform.
func (*Receiver) Some(ctx context.Context, until time.Time, cause error, buf []byte) (n int, d *Descriptors, err error) {
	return 0, nil, errPlatform
}

// SendOnce is not supported on this platform.
func SendOnce(conn *net.UnixConn, payload []byte, fds []int) (n int, err error) {
	return 0, errPlatform
}

// ReceiveOnce is not supported on this platform.
func ReceiveOnce(ctx context.Context, conn *net.UnixConn, buf []byte) (n int, d *Descriptors, err error) {
	return 0, nil, errPlatform
}

// PeerUID is not supported on this platform.
func PeerUID(conn *net.UnixConn) (uid int, err error) {
	return -1, errPlatform
}

// Pair is not supported on this platform.
func Pair() (local *net.UnixConn, remote *os.File, err error) {
	return nil, nil, errPlatform
}

// closeDescriptor is never called: nothing is received on this platform.
func closeDescriptor(int) error {
	return errPlatform
}

func duplicateCloexec(int) (int, error) {
	return -1, errPlatform
}
