//go:build !linux

package restart

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// process is one that this process started. There is no pidfd here: the number is the word of a process that had the
// upgrade's token, and it is not reaped, so not given to another, before its spawn has returned.
type process struct {
	pid    int
	handle *os.Process
}

func holdChild(pid int) (*process, error) {
	if pid <= 1 || pid == os.Getpid() || pid == os.Getppid() {
		return nil, fmt.Errorf("process %d is no child of this one", pid)
	}
	handle, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("hold process %d: %w", pid, err)
	}
	return &process{pid: pid, handle: handle}, nil
}

// fence kills the process. That it is dead shows when its spawn returns.
func (p *process) fence(context.Context) error {
	if err := p.handle.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (p *process) release() { _ = p.handle.Release() }

func inode(*os.File) uint64 { return 0 }

func findProcess(uint64) (*process, error) {
	return nil, fmt.Errorf("find a successor that has not said hello: %w", errors.ErrUnsupported)
}

// canFindProcess says whether findProcess can succeed.
const canFindProcess = false
