package restart

import (
	"context"
	"fmt"

	"github.com/segue-go/segue/handoff"
)

// received is what Session.Receive returned.
type received struct {
	message handoff.Message
	err     error
}

// receiveAll passes on what comes from session until an error, which it passes on too, or the end of ctx.
func receiveAll(ctx context.Context, session *handoff.Session) <-chan received {
	incoming := make(chan received)
	go func() {
		for {
			message, err := session.Receive(ctx)
			select {
			case incoming <- received{message, err}:
			case <-ctx.Done():
				if offer, ok := message.(*handoff.Offer); ok {
					_ = offer.Close()
				}
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return incoming
}

// refusal makes an error of a message that came where another was due: the other side's reason, if it is one.
func refusal(want string, message handoff.Message) error {
	rollback, ok := message.(*handoff.Rollback)
	if !ok {
		return handoff.Unexpected(want, message)
	}
	err := &handoff.RefusedError{Sentinel: handoff.ErrRolledBack, Reason: rollback.Reason, Detail: rollback.Detail}
	if rollback.Reason == handoff.ReasonUnhealthy {
		return fmt.Errorf("%w: %w", ErrUnhealthy, err)
	}
	return err
}
