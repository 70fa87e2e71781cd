//go:build linux

package restart

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/scm"
)

// waitedFor is a context that tells when somebody first waits for its end: a fence does so when it has looked for a process in vain.
type waitedFor struct {
	context.Context
	tell func()
}

func (c waitedFor) Done() <-chan struct{} {
	c.tell()
	return c.Context.Done()
}

// fenceLate fences an offspring, of which start makes something when it was looked for in vain.
func fenceLate(t *testing.T, start func(o *offspring, socket *os.File)) error {
	t.Helper()
	local, remote, err := scm.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = local.Close(), remote.Close() })
	o := newOffspring()
	o.log, o.inode, o.spawner = slog.New(slog.NewTextHandler(testWriter{t}, nil)), inode(remote), loner{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return o.fence(waitedFor{ctx, sync.OnceFunc(func() { start(o, remote) })})
}

// A successor that has to be ended before it says HELLO is looked for until it can be seen: it may just be on its way to its own program.
func TestFenceFindsASuccessorThatIsStillBeingStarted(t *testing.T) {
	child := exec.Command("sleep", "60")
	waited := make(chan struct{})
	err := fenceLate(t, func(o *offspring, socket *os.File) {
		child.ExtraFiles = []*os.File{socket}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(waited)
			o.spawned.err = spawnError(child.Wait())
			close(o.spawned.done)
		}()
	})
	if err != nil {
		t.Errorf("want it found and killed, have %v", err)
		_ = child.Process.Kill()
	}
	<-waited
}

// One that ends meanwhile, or was never started, need not be found.
func TestFenceDoesNotLookForASuccessorThatHasEnded(t *testing.T) {
	if err := fenceLate(t, func(o *offspring, _ *os.File) {
		o.spawned.err = ErrSpawn
		close(o.spawned.done)
	}); err != nil {
		t.Error(err)
	}
}
