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

// serverSocket returns the inode of the server's end of a TCP connection over loopback, 0 if there is none: /proc/net/tcp (proc(5)).
func serverSocket(t *testing.T, client net.Conn) uint64 {
	t.Helper()
	here, there := client.LocalAddr().(*net.TCPAddr), client.RemoteAddr().(*net.TCPAddr)
	content, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("0100007F:%04X 0100007F:%04X", there.Port, here.Port) // both are 127.0.0.1
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) > 9 && fields[1]+" "+fields[2] == want {
			inode, err := strconv.ParseUint(fields[9], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return inode
		}
	}
	return 0
}

// holders lists which of these processes have a descriptor of a socket.
func holders(inode uint64, pids []int) (found []int) {
	want := fmt.Sprintf("socket:[%d]", inode)
	for _, pid := range pids {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			if target, err := os.Readlink(link); err == nil && target == want {
				found = append(found, pid)
				break
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
