package handoff

import (
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/segue-go/segue/internal/scm"
	"github.com/segue-go/segue/internal/wire"
)

// Client is a client's connection on its way from a front to a backend.
type Client struct {
	// Conn is the connection, a *net.TCPConn or *net.UnixConn, or what has their SyscallConn. Nobody has read from it, or reads.
	Conn net.Conn
	// Service is what the client wants, 512 bytes (MaxName) at most.
	Service string
	// Correlation is the front's number for it, which the backend gets and echoes.
	Correlation uint64
	// Relay says that the client waits to be told who serves it (Dialer). Other clients must not be told anything.
	Relay bool
	// Conditions say what speaks against a handoff of this one.
	Conditions Conditions

	announced Token // the last one
}

// tellTimeout is for how long a client may not take what it is told: a few bytes, the first on its connection.
const tellTimeout = time.Second

// tell writes one message to the client.
func (c *Client) tell(message Message) error {
	frame, err := wire.AppendFrame(nil, message.kind(), message)
	if err != nil {
		return err
	}
	if err := c.Conn.SetWriteDeadline(time.Now().Add(tellTimeout)); err != nil {
		return err
	}
	if _, err := c.Conn.Write(frame); err != nil {
		return err
	}
	return c.Conn.SetWriteDeadline(time.Time{})
}

// announce tells the client by which token it will know its backend.
func (c *Client) announce(token Token) error {
	if !c.Relay {
		return nil
	}
	c.announced = token
	return c.tell(&Announce{Token: token, Correlation: c.Correlation})
}

func (c *Client) raw() (syscall.RawConn, error) {
	conn, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%w: a %T, want one with SyscallConn", ErrUnsupported, c.Conn)
	}
	return conn.SyscallConn()
}

// Decline tells a client that waits for its backend that the front serves it, because of err. It does nothing for others. The error is that of the
// connection.
func (c *Client) Decline(err error) error {
	if c.announced.IsZero() {
		return nil
	}
	return c.tell(&Relay{Token: c.announced, Reason: ReasonFor(err), Correlation: c.Correlation})
}

// admissible fails with ErrPermission unless the process at the other end of conn has this one's effective uid or one of uids.
func admissible(conn *net.UnixConn, uids []int) error {
	err := SameUser(conn)
	if err == nil || len(uids) == 0 {
		return err
	}
	if uid, unknown := scm.PeerUID(conn); unknown == nil && slices.Contains(uids, uid) {
		return nil
	}
	return err
}
