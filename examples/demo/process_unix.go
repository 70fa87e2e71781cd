//go:build unix

package main

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup keeps the terminal's Ctrl-C away from a process: it is for the demo, which then ends the process in good order.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// collect takes the exit status of a process, if it is our child and has ended.
func collect(pid int) {
	_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
}

// descriptorLimit is how many descriptors a process may have.
func descriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(uint64(limit.Cur), 1<<20))
}
