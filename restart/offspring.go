package restart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/scm"
)

// offspring is a candidate that this process's spawner started.
type offspring struct {
	log     *slog.Logger
	spawner spawner
	spawned *spawned
	inode   uint64   // of its end of the socket
	process *process // nil before HELLO
}

var _ candidate = (*offspring)(nil)

// spawnOffspring starts a candidate with its end of a new session.
func (g *Generation) spawnOffspring(token handoff.Token) (*handoff.Session, *offspring, error) {
	local, remote, err := scm.Pair()
	if err != nil {
		return nil, nil, fmt.Errorf("make upgrade socket: %w", err)
	}
	defer remote.Close()
	secret, err := tokenPipe(token)
	if err != nil {
		_ = local.Close()
		return nil, nil, err
	}
	defer secret.Close()
	o := &offspring{log: g.log, spawner: g.spawner, inode: inode(remote)}
	g.log.Info("upgrading", "generation", g.number, "program", os.Args[0])
	if o.spawned, err = g.spawner.spawn(remote, secret); err != nil {
		_ = local.Close()
		return nil, nil, err
	}
	return handoff.NewSession(local), o, nil
}

// tokenPipe returns a file that gives the token to the one who reads it first.
func tokenPipe(token handoff.Token) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pass token: %w", err)
	}
	_, err = write.Write(token.Expose()) // 16 bytes fit into any pipe
	if err = errors.Join(err, write.Close()); err != nil {
		_ = read.Close()
		return nil, fmt.Errorf("pass token: %w", err)
	}
	return read, nil
}

func (o *offspring) greeted(hello *handoff.Hello) (err error) {
	o.spawner.sealed()
	o.process, err = holdChild(hello.PID)
	return err
}

func (o *offspring) pid() int {
	if o.process == nil {
		return 0
	}
	return o.process.pid
}

func (o *offspring) ended() <-chan struct{} { return o.spawned.done }

func (o *offspring) end() error { return o.spawned.err }

// confirm waits for the successor's call of tableflip's Ready. One that is told to stop before it has heard of the commit says ROLLBACK
// instead, and lives on for as long as it drains: until this side knows, nobody accepts.
func (o *offspring) confirm(ctx context.Context, _ *handoff.Session, incoming <-chan received, other func(handoff.Message) error) error {
	for {
		select {
		case <-o.spawned.done:
			return o.spawned.err
		case received := <-incoming:
			err := received.err
			if isGone(err) {
				return o.parted(ctx, err)
			}
			if _, isPong := received.message.(*handoff.Pong); err == nil && !isPong { // it answers a ping from before the commit
				err = other(received.message)
			}
			// One that cannot be answered because it has closed its end may have said why before.
			if err != nil && !isGone(err) && !o.isReady() {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// readyGrace is how long tableflip may take to pass on what it was told before the session ended.
const readyGrace = time.Second

// parted finds out what the end of the session means: that the successor is dead, or that it has called Ready, and parted since.
func (o *offspring) parted(ctx context.Context, end error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyGrace, end)
	defer cancel()
	select {
	case <-o.spawned.done:
		return o.spawned.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fence returns when the process is dead and reaped.
func (o *offspring) fence(ctx context.Context) error {
	select {
	case <-o.spawned.done:
		if o.spawned.err != nil && o.process == nil {
			return nil
		}
	default:
	}
	if o.process == nil {
		o.spawner.sealed() // from here, who has the socket got it by being started with it
		found, err := o.find(ctx)
		if err != nil {
			o.log.Warn("cannot find the successor to end it", "error", err)
			if o.isReady() {
				return fmt.Errorf("it called ready unbidden, and cannot be found: %w", err)
			}
		}
		o.process = found
	}
	if o.process != nil {
		defer o.release()
		if err := o.process.fence(ctx); err != nil {
			return err
		}
	}
	select {
	case <-o.spawned.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// findPause is the time between two looks for a process. Nothing tells when there is more to see.
const findPause = 20 * time.Millisecond

// find looks for a process that has not said HELLO until it is found, or ctx ends. It may not have got as far as to its own program yet, and
// while others exit, the kernel's list of children may lack any (proc(5)). Nil means that it is known to have ended.
func (o *offspring) find(ctx context.Context) (*process, error) {
	again := time.NewTicker(findPause)
	defer again.Stop()
	ended := o.ended()
	for {
		found, err := findProcess(o.inode)
		if err == nil || !canFindProcess {
			return found, err
		}
		select {
		case <-again.C:
		case <-ended:
			if o.end() != nil {
				return nil, nil
			}
			ended = nil // it called Ready unbidden, and may live
		case <-ctx.Done():
			return nil, err
		}
	}
}

// isReady reports whether the process has told tableflip that it is ready, to which this process is replaced then. Before the commit
// nobody has bidden it to.
func (o *offspring) isReady() bool {
	select {
	case <-o.spawned.done:
		return o.spawned.err == nil
	default:
		return false
	}
}

func (o *offspring) startedHere() bool { return true }

func (o *offspring) release() { o.process.release() }
