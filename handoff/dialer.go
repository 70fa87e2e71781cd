package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/segue-go/segue/internal/wire"
)

// DefaultRelayTimeout is how long a client waits to be told who serves it.
const DefaultRelayTimeout = 5 * time.Second

// Dialer is the client's side of a handoff that it knows of: it connects to a front, and learns on the same connection that the backend
// serves it from here. If that fails in any way it silently reconnects. Both functions must be set. Safe for concurrent use.
type Dialer struct {
	// Front connects to the front, whose Clients have Relay set.
	Front func(ctx context.Context) (net.Conn, error)
	// Reconnect connects to the backend without a handoff.
	Reconnect func(ctx context.Context) (net.Conn, error)
	// Timeout is how long the handoff may take; 0 and less mean DefaultRelayTimeout.
	Timeout time.Duration
}

// Dial returns a connection that the backend serves, which the caller closes. failed is why it is not that of a handoff, nil if it is; err is
// that of Reconnect.
func (d *Dialer) Dial(ctx context.Context) (conn net.Conn, failed, err error) {
	conn, failed = d.dialFront(ctx)
	if failed == nil {
		return conn, nil, nil
	}
	conn, err = d.Reconnect(ctx)
	return conn, failed, err
}

func (d *Dialer) dialFront(ctx context.Context) (net.Conn, error) {
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = DefaultRelayTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrAckTimeout)
	defer cancel()
	conn, err := d.Front(ctx)
	if err != nil {
		return nil, err
	}
	if err := awaitRelay(ctx, conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// awaitRelay reads who serves conn, and not a byte more.
func awaitRelay(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	err := readRelay(conn)
	if !stop() { // it has ended in this very moment, and the deadline may be set after this
		return context.Cause(ctx)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.Cause(ctx)
	}
	return err
}

// maxAnnounces is how many backends a front may try for one client.
const maxAnnounces = 16

func readRelay(conn net.Conn) error {
	var token Token
	for range maxAnnounces {
		message, err := readMessage(conn)
		if err != nil {
			return err
		}
		switch message := message.(type) {
		case *Announce:
			token = message.Token // the last one counts: the front tries another backend
		case *Relay:
			if err := token.Verify(message.Token.Expose()); err != nil {
				return fmt.Errorf("relay: %w", err)
			}
			if !message.Backend {
				return &RefusedError{Sentinel: ErrRefused, Reason: message.Reason}
			}
			return nil
		default:
			return Unexpected("ANNOUNCE or RELAY", message)
		}
	}
	return fmt.Errorf("%w: more than %d ANNOUNCE", ErrUnexpectedMessage, maxAnnounces)
}

// readMessage reads exactly one frame.
func readMessage(conn net.Conn) (Message, error) {
	var header [wire.HeaderSize]byte
	if _, err := io.ReadFull(conn, header[:]); err != nil {
		return nil, err
	}
	kind, length, err := wire.ParseHeader(header, strangerBody)
	if err != nil {
		return nil, err
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	return decodeMessage(kind, body)
}
