package restart

import (
	"context"
	"os"

	"github.com/segue-go/segue/handoff"
)

// spawner starts a successor in place of this process and tells how it fares. In earnest it is tableflip (spawnerInPlace);
// where tableflip cannot, there is none.
type spawner interface {
	// inherited returns what the predecessor left to this process, nil if there was none.
	inherited() *inheritance
	// check fails if the successor's program cannot be started.
	check() error
	// spawn starts a successor with its end of the upgrade socket and the token; both files stay the caller's, who may
	// close them at once.
	spawn(socket, token *os.File) (*spawned, error)
	// sealed drops the copies that spawn keeps of the two files, as soon as the successor is known to have them.
	sealed()
	// ready tells the predecessor's spawn that this process took over, and allows this process to spawn.
	ready() error
	// waitPredecessor waits for the end of the process that spawned this one.
	waitPredecessor(ctx context.Context) error
	// stop ends a spawn under way, for good.
	stop()
}

// spawned is a successor from its start on. done is closed when it called ready, and err is nil; or when it is dead and
// reaped (ErrSpawn, ErrSuccessorExited); or when it was told to die, after patience (ErrUpgradeTimeout).
type spawned struct {
	done chan struct{}
	err  error // to be read after done
}

// inheritance is what a predecessor left to a process that it spawned.
type inheritance struct {
	socket *os.File // this end of the upgrade socket
	token  handoff.Token
}
