package restart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one that this process started or that came to it, held by a pidfd: whatever happens to its number, a signal sent through it
// reaches this process or none (pidfd_open(2)).
type process struct {
	pid   int
	pidfd int
}

// holdChild takes hold of a child by its number, which comes from the child itself: it fails if that number is not one of
// this process's children.
func holdChild(pid int) (*process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("hold process %d: %w", pid, os.NewSyscallError("pidfd_open", err))
	}
	// WNOWAIT leaves the exit status to whoever reaps it, tableflip; ECHILD says that it is somebody else's.
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		_ = unix.Close(pidfd)
		return nil, fmt.Errorf("process %d is no child of this one: %w", pid, os.NewSyscallError("waitid", err))
	}
	return &process{pid: pid, pidfd: pidfd}, nil
}

// fence kills the process and waits until it is dead, or ctx ends.
func (p *process) fence(ctx context.Context) error {
	if err := unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	for {
		wait := time.Second
		if deadline, ok := ctx.Deadline(); ok {
			wait = time.Until(deadline)
		}
		if wait <= 0 || ctx.Err() != nil {
			return fmt.Errorf("process %d does not die: %w", p.pid, context.Cause(ctx))
		}
		// A pidfd becomes readable when its process has ended (pidfd_open(2)).
		ended := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(ended, int(wait.Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
		if n > 0 {
			return nil
		}
	}
}

func (p *process) release() { _ = unix.Close(p.pidfd) }

// inode returns the number that names an open socket in /proc/PID/fd, 0 if it has none.
func inode(file *os.File) uint64 {
	var stat unix.Stat_t
	raw, err := file.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { _ = unix.Fstat(int(fd), &stat) })
	}
	if err != nil {
		return 0
	}
	return stat.Ino
}

// findProcess looks for the child that holds the other end of a socket: the one way to a successor that has not said HELLO,
// because tableflip does not tell what it started. inode is that of the successor's end.
func findProcess(inode uint64) (*process, error) {
	lists, err := filepath.Glob("/proc/self/task/*/children") // proc(5): the children that each thread made
	if err != nil {
		return nil, err
	}
	for _, list := range lists {
		content, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has gone
		}
		for _, pid := range strings.Fields(string(content)) {
			if !hasExecuted(pid) || !hasSocket(pid, inode) {
				continue
			}
			number, err := strconv.Atoi(pid)
			if err != nil {
				return nil, err
			}
			return holdChild(number)
		}
	}
	return nil, errors.New("no child holds the upgrade socket")
}

// hasExecuted tells a program from a copy of this process between fork and exec, which some other goroutine starts and
// which has all of this process's descriptors: the kernel marks those with PF_FORKNOEXEC (linux/sched.h).
func hasExecuted(pid string) bool {
	const forkNoExec = 0x40
	content, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return false
	}
	// proc(5): the second field, a name in parentheses, may contain anything; the flags are the ninth.
	text := string(content)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 7 {
		return false
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	return err == nil && flags&forkNoExec == 0
}

func hasSocket(pid string, inode uint64) bool {
	want := fmt.Sprintf("socket:[%d]", inode)
	directory := filepath.Join("/proc", pid, "fd")
	entries, err := os.ReadDir(directory)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(entries, func(entry os.DirEntry) bool {
		target, err := os.Readlink(filepath.Join(directory, entry.Name()))
		return err == nil && target == want
	})
}

// canFindProcess says whether findProcess can succeed.
const canFindProcess = true
