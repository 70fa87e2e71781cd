package listener

import (
	"sync"

	"golang.org/x/sys/unix"
)

// pipe is where bytes are on their way from one socket to another.
type pipe struct {
	r, w int
	n    int // how many bytes are in it
}

// pipes are those that relays of this process have and have had.
var pipes pipePool

// pipePool lends pipes, and keeps some that were given back. Descriptors are limited by process, and so is what it lends.
type pipePool struct {
	mu    sync.Mutex
	free  []*pipe
	open  int
	limit int // 0: not known yet
}

const (
	// pipeSize has room for RelayChunk bytes in more pieces than they come in.
	pipeSize = 512 << 10
	// maxFreePipes is how many are kept for the next.
	maxFreePipes = 16
	// pipeShare is which part of the descriptors may be pipes, two each. Beyond that, relays copy through buffers.
	pipeShare = 8
)

// get returns an empty pipe, or nil if there is none to be had.
func (l *pipePool) get() *pipe {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.free) - 1; last >= 0 {
		p := l.free[last]
		l.free = l.free[:last]
		return p
	}
	if l.limit == 0 {
		l.limit = pipeLimit()
	}
	if l.open >= l.limit {
		return nil
	}
	var ends [2]int
	if unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	l.open++
	// It works with the size that it has, too: the kernel may not give one user so much of it.
	_, _ = unix.FcntlInt(uintptr(ends[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{r: ends[0], w: ends[1]}
}

// put takes a pipe back. One that is not empty is closed.
func (l *pipePool) put(p *pipe) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.n == 0 && len(l.free) < maxFreePipes {
		l.free = append(l.free, p)
		return
	}
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
	l.open--
}

func pipeLimit() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return maxFreePipes
	}
	return int(min(limit.Cur, 1<<20) / (2 * pipeShare))
}
