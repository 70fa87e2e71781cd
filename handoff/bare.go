package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/segue-go/segue/internal/scm"
)

// DialBare makes one attempt in the bare form: it connects to the Unix socket at path, sends token with the descriptor of
// file, and closes the connection. It does not wait for the peer, which perhaps has not even accepted yet. file stays the
// caller's whatever happens.
//
// The error is a *Failure.
func DialBare(ctx context.Context, path string, token Token, file syscall.Conn) error {
	if !scm.Supported { // some that cannot pass descriptors can dial
		return &Failure{Sentinel: ErrUnsupported, Descriptor: -1, Socket: path}
	}
	var dialer net.Dialer // its connect(2) does not block: a full backlog is EAGAIN
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return dialFailure(path, err)
	}
	defer conn.Close()
	return sendBare(conn.(*net.UnixConn), path, token, file)
}

// SendBare makes one attempt in the bare form over a connection that the caller keeps: one sendmsg(2) of token and the
// descriptor of file, which does not block and raises no SIGPIPE. file stays the caller's whatever happens. Nothing else
// may be written to conn meanwhile.
//
// The error is a *Failure. After one that Reached the peer, conn has lost its place and is to be closed.
func SendBare(conn *net.UnixConn, token Token, file syscall.Conn) error {
	var socket string
	if peer := conn.RemoteAddr(); peer != nil {
		socket = peer.String()
	}
	return sendBare(conn, socket, token, file)
}

func sendBare(conn *net.UnixConn, socket string, token Token, file syscall.Conn) error {
	if token.IsZero() {
		return &Failure{Sentinel: ErrTokenMissing, Descriptor: -1, Socket: socket}
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return &Failure{Sentinel: ErrSendFailed, Descriptor: -1, Socket: socket, Cause: err}
	}
	var failure error
	// Inside Control the number cannot become that of another file, whoever closes this one.
	err = raw.Control(func(fd uintptr) {
		taken, err := scm.SendOnce(conn, token.Expose(), []int{int(fd)})
		if errors.Is(err, net.ErrClosed) {
			err = fmt.Errorf("%w: %w", syscall.ENOTCONN, err)
		}
		failure = sendFailure(socket, int(fd), taken, err)
	})
	if err != nil {
		return &Failure{Sentinel: ErrSendFailed, Descriptor: -1, Socket: socket, Cause: err}
	}
	return failure
}

// ReceiveBare receives one attempt in the bare form, of DialBare, SendBare or a program in another language. It calls
// verify with the token as it came: that is Token.Verify of a token that is good for any number of attempts, or calls
// TokenStore.Redeem for one that is good once. Before verify has returned nil nothing touches the descriptor, which is
// closed on every error; then it is the caller's.
//
// It fails with ErrTokenMissing if the peer ended the connection instead (an io.EOF too), ErrTokenLength if the message has
// not exactly TokenSize bytes, ErrDescriptorCount if not exactly one descriptor came, ErrTruncated if this process had no
// room for it, and the cause of ctx, which bounds the wait. After any of these conn is to be closed; after an error of
// verify, which comes back wrapped, it may be kept.
func ReceiveBare(ctx context.Context, conn *net.UnixConn, verify func(presented []byte) error) (*os.File, error) {
	receive := func(p []byte) (int, *scm.Descriptors, error) { return scm.ReceiveOnce(ctx, conn, p) }
	descriptor, err := receiveBare(receive, verify)
	if err != nil {
		return nil, err
	}
	return descriptor.File("handed over"), nil
}

// bareMessage receives one message, as scm.ReceiveOnce does.
type bareMessage func(p []byte) (n int, descriptors *scm.Descriptors, err error)

func receiveBare(receive bareMessage, verify func(presented []byte) error) (*scm.Descriptor, error) {
	// One byte more than a token, to see one that is too long.
	var presented [TokenSize + 1]byte
	length, received, err := receive(presented[:])
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("receive handoff: %w: %w", ErrTokenMissing, err)
	}
	if err != nil {
		return nil, fmt.Errorf("receive handoff: %w", err)
	}
	defer received.Close()
	if length != TokenSize {
		return nil, fmt.Errorf("receive handoff: %w: %d bytes in one message, want %d", ErrTokenLength, length, TokenSize)
	}
	if received.Len() != 1 {
		return nil, fmt.Errorf("receive handoff: %w: %d with the token, want 1", ErrDescriptorCount, received.Len())
	}
	if err := verify(presented[:length]); err != nil {
		return nil, fmt.Errorf("receive handoff: %w", err)
	}
	return scm.NewDescriptor(received.Take(0)), nil
}

// SameUser fails with ErrPermission unless the process at the other end of conn has this one's effective uid, as the kernel
// noted it when that process connected or listened; with ErrUnsupported where the platform does not tell.
func SameUser(conn *net.UnixConn) error {
	uid, err := scm.PeerUID(conn)
	if err != nil {
		return err
	}
	if own := os.Geteuid(); uid != own {
		return fmt.Errorf("%w: peer has uid %d, want %d", ErrPermission, uid, own)
	}
	return nil
}
