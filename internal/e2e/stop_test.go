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

// A process that is to take over can be stopped while it waits for a generation that waits for its own predecessor. Nothing has happened then.
func TestStopOfATakeoverThatWaits(t *testing.T) {
	s := startService(t, config{Probation: -1, Drain: patience, Socket: true})
	slow := make(chan error, 1)
	<-s.begin("/slow?d=2s", slow) // keeps the first generation draining
	first := s.pid()
	s.hangup(2)
	second := s.pid()
	another := s.launchAnother(syscall.SysProcAttr{})
	s.await("visit", func(l line) bool { return l.Message == "taking over" && l.PID == another.Process.Pid })
	s.signal(another.Process.Pid, syscall.SIGTERM)
	if err := s.wait(another); err == nil {
		t.Error("want it to say that it was stopped")
	}
	select {
	case <-slow:
		t.Fatal("it was not stopped before the first generation had drained")
	default:
	}
	s.await("reason", func(l line) bool {
		return strings.HasPrefix(l.raw, "service: ") && strings.Contains(l.raw, "stopped by a signal")
	})
	if err := <-slow; err != nil {
		t.Errorf("request in the first generation: %v", err)
	}
	awaitExit(t, first)
	if generation, pid := s.serving(); generation != 2 || pid != second || s.pid() != second {
		t.Errorf("want generation 2 of pid %d, have generation %d of pid %d, PID file %d", second, generation, pid, s.pid())
	}
	s.takeOver(3)
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
