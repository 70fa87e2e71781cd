//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// serverSockets returns the inodes of the server's ends of TCP connections over loopback, 0 for one that is not there: /proc/net/tcp
// (proc(5)), which is slow to read where many connections have ended recently.
func serverSockets(t *testing.T, clients []*numberedConn) []uint64 {
	t.Helper()
	content, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	inodes := make(map[string]uint64)
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) > 9 {
			inodes[fields[1]+" "+fields[2]], _ = strconv.ParseUint(fields[9], 10, 64)
		}
	}
	found := make([]uint64, len(clients))
	for i, client := range clients {
		here, there := client.LocalAddr().(*net.TCPAddr), client.RemoteAddr().(*net.TCPAddr)
		found[i] = inodes[fmt.Sprintf("0100007F:%04X 0100007F:%04X", there.Port, here.Port)] // both are 127.0.0.1
	}
	return found
}

// held lists the sockets that a process has descriptors of.
func held(pid int) map[uint64]bool {
	found := make(map[uint64]bool)
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		var inode uint64
		if target, err := os.Readlink(link); err == nil {
			if _, err := fmt.Sscanf(target, "socket:[%d]", &inode); err == nil {
				found[inode] = true
			}
		}
	}
	return found
}

// polled lists the sockets that a process waits for: the inodes in the fdinfo of its epoll descriptors (proc(5)).
func polled(pid int) map[uint64]bool {
	found := make(map[uint64]bool)
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "anon_inode:[eventpoll]" {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, filepath.Base(link)))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(info)) {
			// tfd: 5 events: 8000201d data: 7f... pos:0 ino:1a2b sdev:8
			if _, rest, ok := strings.Cut(line, " ino:"); ok {
				if inode, err := strconv.ParseUint(strings.Fields(rest)[0], 16, 64); err == nil {
					found[inode] = true
				}
			}
		}
	}
	return found
}
