//go:build linux

package e2e

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A service manager may stop the old process as soon as the PID file, or READY=1, names the new one, which is before the old one knows that
// the new one knows of the commit. The new one serves on.
func TestInvariant2StopOfTheOldProcessLeavesTheNewOne(t *testing.T) {
	for _, test := range []struct {
		name  string
		begin func(s *service)
	}{
		{"in place", func(s *service) { s.signal(s.pid(), syscall.SIGHUP) }},
		{"takeover", func(s *service) {
			another := s.launchAnother(syscall.SysProcAttr{})
			go func() { _ = another.Wait() }()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			manager := listenAsManager(t, filepath.Join(dir, "notify"))
			s := newService(t, config{Dir: dir, Probation: -1, Socket: true, Address: freeAddress(t)})
			s.environment = []string{"NOTIFY_SOCKET=" + filepath.Join(dir, "notify")}
			s.launch(s.program)
			s.awaitFirst()
			first := s.pid()
			// A manager that does not read holds the new one in the moment after it has written the PID file.
			manager.fill(t)
			test.begin(s)
			for s.pid() == first {
				time.Sleep(time.Millisecond) // nothing tells when a file is replaced
			}
			second := s.pid()
			s.signal(first, syscall.SIGTERM)
			s.await("stop", func(l line) bool { return l.Message == "stopping" && l.PID == first })
			manager.await(t, fmt.Sprintf("MAINPID=%d", second))
			awaitExit(t, first)
			s.hangup(3) // not before it has heard all that the first one had to say
			for _, l := range s.linesAfter(0) {
				if l.Message == "stopping" && l.PID == second {
					t.Error("the new process was stopped, too")
				}
			}
		})
	}
}

// serviceManager is the other end of NOTIFY_SOCKET.
type serviceManager struct{ *net.UnixConn }

func listenAsManager(t *testing.T, path string) serviceManager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return serviceManager{conn}
}

// fill has whoever notifies wait until the manager reads.
func (m serviceManager) fill(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for err == nil {
		err = unix.Sendto(fd, []byte("full"), 0, &unix.SockaddrUnix{Name: m.LocalAddr().String()})
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
}

// await reads until somebody says that.
func (m serviceManager) await(t *testing.T, what string) {
	t.Helper()
	buffer := make([]byte, 1000)
	_ = m.SetReadDeadline(time.Now().Add(patience))
	for {
		n, err := m.Read(buffer)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if strings.Contains(string(buffer[:n]), what) {
			break
		}
	}
	go func() { // nobody waits from here
		_ = m.SetReadDeadline(time.Time{})
		for {
			if _, err := m.Read(buffer); err != nil {
				return
			}
		}
	}()
}
