package restart

import (
	"context"

	"github.com/segue-go/segue/handoff"
)

// candidate is the process that an attempt may make the successor: one that this process started (offspring), or one that
// came by itself (visitor).
type candidate interface {
	// greeted is called with the HELLO that had the token. It fails if the process behind it is not known for sure.
	greeted(hello *handoff.Hello) error
	// pid is the process's number, for people. 0 before greeted.
	pid() int
	// ended is closed when the process is known to be dead, or to be through with its start; end says which. Nil if nobody
	// tells.
	ended() <-chan struct{}
	end() error
	// startedHere reports whether this process started it. Otherwise something else did, which stops it itself.
	startedHere() bool
	// confirm waits for the proof that the process knows of the commit. Whatever it still says comes from incoming; what is no such
	// proof is for other.
	confirm(ctx context.Context, session *handoff.Session, incoming <-chan received, other func(handoff.Message) error) error
	// fence kills the process and returns when it is dead.
	fence(ctx context.Context) error
	// release lets go of what was held to do all that. The process lives on.
	release()
}
