package restart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/segue-go/segue/handoff"
)

const (
	// fenceTimeout is how long a killed successor may take to be dead and reaped.
	fenceTimeout = 5 * time.Second
	// exitGrace is how long a successor that closed its end of the socket may take to be reaped, so that the error can
	// say how it ended.
	exitGrace = 200 * time.Millisecond
	// rollbackTimeout is how long a word to a successor that is about to be killed may take.
	rollbackTimeout = 100 * time.Millisecond
)

// rollBack makes sure that the successor is dead, and then serves on. It returns why.
func (a *attempt) rollBack(cause error) error {
	cause = a.explain(cause)
	telling, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	_ = a.session.Send(telling, &handoff.Rollback{Reason: handoff.ReasonFor(cause), Detail: cause.Error()}) // it may be dead, deaf or stopped

	fencing, cancel := context.WithTimeoutCause(context.Background(), fenceTimeout, fmt.Errorf("not dead after %v", fenceTimeout))
	defer cancel()
	unfenced := a.candidate.fence(fencing)
	if unfenced == nil {
		// Not before: to a successor that lives, the end of the session means that its predecessor died.
		_ = a.session.Close()
	} else {
		a.unfenced = append(a.unfenced, a.session)
	}
	if a.granted {
		cause = fmt.Errorf("%w: %w", ErrRolledBack, cause)
		a.sockets.Resume()
	}
	if a.mover != nil {
		a.mover.rollBack(unfenced == nil)
	}
	if unfenced != nil {
		return fmt.Errorf("%w (and the successor may still run: %w)", cause, unfenced)
	}
	return cause
}

// explain finds the reason behind the end of the session: the successor's death, if it is dead.
func (a *attempt) explain(cause error) error {
	if !isGone(cause) {
		return cause
	}
	closed := fmt.Errorf("successor closed the upgrade socket: %w", cause)
	if a.candidate.ended() == nil {
		return closed
	}
	grace := time.NewTimer(exitGrace)
	defer grace.Stop()
	select {
	case <-a.candidate.ended():
		if err := a.candidate.end(); err != nil {
			return err
		}
	case <-grace.C:
	}
	return closed
}

// isGone reports whether an error means that the other side has closed its end, which death does too.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
