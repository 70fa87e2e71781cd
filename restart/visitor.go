package restart

import (
	"context"
	"fmt"
	"net"

	"github.com/segue-go/segue/handoff"
)

// visitor is a candidate that something else started: it came to the takeover socket by itself.
type visitor struct {
	session *handoff.Session
	process *process // which it is by the word of the kernel
	known   bool     // it had the token
}

var _ candidate = (*visitor)(nil)

// receiveVisitor takes hold of the process at the other end of conn, which it owns from here.
func receiveVisitor(conn *net.UnixConn, allowed func(uid int) bool) (*visitor, error) {
	peer, uid, err := holdPeer(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	v := &visitor{session: handoff.NewSession(conn), process: peer}
	if !allowed(uid) {
		v.dismiss(handoff.ReasonPermission, fmt.Sprintf("uid %d may not take over", uid))
		return nil, fmt.Errorf("%w: process %d of uid %d", ErrTakeoverDenied, peer.pid, uid)
	}
	return v, nil
}

// dismiss sends it away before any attempt.
func (v *visitor) dismiss(reason handoff.Reason, detail string) {
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	_ = v.session.Send(ctx, &handoff.Refuse{Reason: reason, Detail: detail})
	_ = v.session.Close()
	v.release()
}

func (v *visitor) greeted(*handoff.Hello) error {
	v.known = true
	return nil // the kernel has said who it is
}

func (v *visitor) pid() int { return v.process.pid }

func (v *visitor) ended() <-chan struct{} { return nil } // the end of the session tells

func (v *visitor) end() error { return nil }

func (v *visitor) startedHere() bool { return false }

// confirm asks once more whether it is alive: messages are handled in their order, so whoever answers has handled COMMITTED.
func (v *visitor) confirm(ctx context.Context, session *handoff.Session, incoming <-chan received, other func(handoff.Message) error) error {
	ping := &handoff.Ping{Number: confirmingPing}
	if err := session.Send(ctx, ping); err != nil {
		return err
	}
	for {
		select {
		case received := <-incoming:
			if received.err != nil {
				return received.err
			}
			pong, ok := received.message.(*handoff.Pong)
			switch {
			case ok && pong.Number == ping.Number:
				return nil
			case ok: // it answers a ping from before the commit
			default:
				if err := other(received.message); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// confirmingPing is a number that no earlier PING of an attempt reaches.
const confirmingPing = 1 << 62

// fence does nothing to a process that was never given anything: it may be an operator's, with the wrong socket.
func (v *visitor) fence(ctx context.Context) error {
	defer v.release()
	if !v.known {
		return nil
	}
	return v.process.fence(ctx)
}

func (v *visitor) release() { v.process.release() }
