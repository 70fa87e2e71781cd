package restart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

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

// confirm waits for the successor's call of tableflip's Ready.
func (o *offspring) confirm(ctx context.Context, _ *handoff.Session, _ <-chan received, _ func(handoff.Message) error) error {
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
		found, err := findProcess(o.inode)
		if err != nil {
			o.log.Warn("cannot find the successor to end it", "error", err)
			if o.unbidden() {
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

// unbidden reports whether the process told tableflip that it is ready before it was committed. To tableflip this process is
// replaced then.
func (o *offspring) unbidden() bool {
	select {
	case <-o.spawned.done:
		return o.spawned.err == nil
	default:
		return false
	}
}

func (o *offspring) startedHere() bool { return true }

func (o *offspring) release() { o.process.release() }
