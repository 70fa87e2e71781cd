//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// process is a line of /proc/PID/stat (proc(5)).
type process struct {
	pid, parent, group int
	state              string
}

func processes() []process {
	var found []process
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // it has gone
		}
		// The second field, a name in parentheses, may contain anything.
		text := string(content)
		var p process
		_, err = fmt.Sscan(text, &p.pid)
		if err == nil {
			_, err = fmt.Sscan(text[strings.LastIndexByte(text, ')')+1:], &p.state, &p.parent, &p.group)
		}
		if err == nil {
			found = append(found, p)
		}
	}
	return found
}

// awaitState waits until a process is in a state of proc(5). Nothing tells a process that is not the parent, so it looks
// each millisecond.
func awaitState(t *testing.T, pid int, state string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, p := range processes() {
			if p.pid == pid && p.state == state {
				return
			}
		}
	}
	t.Fatalf("process %d was not in state %s within %v", pid, state, patience)
}

// footprint is what a process holds.
type footprint struct {
	Descriptors map[string]int // by what they refer to, without numbers that differ
	Goroutines  int
	Children    []string
}

// measure returns the serving generation's footprint, measured when nothing is under way.
func (s *service) measure() footprint {
	s.t.Helper()
	pid := s.pid()
	f := footprint{Descriptors: make(map[string]int)}
	// The request that asks is itself a connection with a goroutine, each time.
	goroutines, err := strconv.Atoi(strings.TrimSpace(s.get("/goroutines")))
	if err != nil {
		s.t.Fatal(err)
	}
	f.Goroutines = goroutines
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, entry := range entries {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, entry.Name()))
		if err != nil {
			continue
		}
		kind, _, _ := strings.Cut(target, ":[")
		f.Descriptors[kind]++
	}
	f.Children = children(pid)
	return f
}

// children lists a process's children, dead ones too, as "pid state".
func children(parent int) []string {
	var found []string
	for _, p := range processes() {
		if p.parent == parent {
			found = append(found, fmt.Sprint(p.pid, " ", p.state))
		}
	}
	return found
}

// awaitExit waits until a process has ended. A pidfd becomes readable then (pidfd_open(2)).
func awaitExit(t *testing.T, pid int) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		if n > 0 {
			return
		}
	}
	t.Fatalf("process %d did not end within %v", pid, patience)
}
