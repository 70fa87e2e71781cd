//go:build linux

package e2e

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
)

// takeOver starts another process and waits until it serves as generation number.
func (s *service) takeOver(number int) (pid int) {
	s.t.Helper()
	mark := s.mark()
	another := s.launchAnother(syscall.SysProcAttr{})
	go func() { _ = another.Wait() }()
	s.awaitAfter(mark, "takeover", func(l line) bool { return l.Message == "serving" && l.Generation == number })
	return another.Process.Pid
}

func TestTakeoverByASecondStart(t *testing.T) {
	s := startService(t, config{Probation: -1, Socket: true, Unix: true, Address: freeAddress(t)})
	first := s.pid()
	second := s.takeOver(2)
	if generation, pid := s.serving(); generation != 2 || pid != second || s.pid() != second {
		t.Errorf("want generation 2 of pid %d, have generation %d of pid %d, PID file %d", second, generation, pid, s.pid())
	}
	if err := s.first.Wait(); err != nil {
		t.Errorf("exit of the first: %v", err)
	}
	awaitExit(t, first)
	// Both ways mix: in place, then by another start again.
	s.hangup(3)
	awaitExit(t, second)
	s.takeOver(4)
	last := s.pid()
	s.signal(last, syscall.SIGTERM)
	awaitExit(t, last)
	if left, _ := filepath.Glob(filepath.Join(s.config.Dir, "*.sock*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(s.config.Dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestInvariant2AFailedTakeoverChangesNothing(t *testing.T) {
	for _, test := range []struct {
		name  string
		visit func(t *testing.T, s *service)
	}{
		{"with another token", func(t *testing.T, s *service) {
			s.file("takeover.sock.token", "0123456789abcdef", 0o600)
			s.refusedStart(t, "token")
		}},
		{"with no token", func(t *testing.T, s *service) {
			if err := os.Remove(s.config.takeoverSocket() + ".token"); err != nil {
				t.Fatal(err)
			}
			s.refusedStart(t, "no such file")
		}},
		{"with a short token", func(t *testing.T, s *service) {
			s.file("takeover.sock.token", "0123", 0o600)
			s.refusedStart(t, "wrong length")
		}},
		{"by another user", func(t *testing.T, s *service) {
			if os.Geteuid() != 0 {
				t.Skip("needs root to start a process as another user")
			}
			// It may do everything but this: even the token's file is readable.
			for _, path := range []string{s.config.Dir, filepath.Dir(s.config.Dir), filepath.Dir(ownBinary(t)), filepath.Dir(filepath.Dir(ownBinary(t)))} {
				if err := os.Chmod(path, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(s.config.takeoverSocket()+".token", 0o644); err != nil {
				t.Fatal(err)
			}
			another := s.launchAnother(syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
			if err := s.wait(another); err == nil {
				t.Error("a process of another user took over")
			}
			s.await("denial", func(l line) bool { return strings.Contains(l.Error, "takeover denied") })
		}},
		{"by one that says nothing", func(t *testing.T, s *service) {
			conn := s.visit(t)
			s.awaitFailure("upgrade timed out")
			conn.Close()
		}},
		{"by one that hangs up", func(t *testing.T, s *service) {
			s.visit(t).Close()
			s.awaitFailure("closed the upgrade socket")
		}},
		{"by one that sends garbage", func(t *testing.T, s *service) { // and that is not killed for it: it is this test
			conn := s.visit(t)
			if _, err := conn.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			s.awaitFailure("frame too large")
			conn.Close()
		}},
		{"by one that dies after HELLO", func(t *testing.T, s *service) {
			token, err := readWhole(s.config.takeoverSocket() + ".token")
			if err != nil {
				t.Fatal(err)
			}
			conn := s.visit(t)
			// Only HELLO, and no reader for WELCOME: the token is used up all the same.
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			session := handoff.NewSession(conn.(*net.UnixConn))
			if err := session.Send(ctx, &handoff.Hello{Version: 0, Token: token}); err != nil {
				t.Fatal(err)
			}
			conn.Close()
			s.awaitFailure("")
		}},
		{"by one that dies on probation", func(t *testing.T, s *service) {
			another := s.launchAnother(syscall.SysProcAttr{})
			s.await("probation", func(l line) bool { return l.Message == "serving on probation" })
			s.signal(another.Process.Pid, syscall.SIGKILL)
			_ = s.wait(another)
			s.awaitFailure("rolled back")
		}},
		{"by one that is stopped on probation", func(t *testing.T, s *service) {
			another := s.launchAnother(syscall.SysProcAttr{})
			s.await("probation", func(l line) bool { return l.Message == "serving on probation" })
			s.signal(another.Process.Pid, syscall.SIGSTOP)
			s.awaitFailure("does not answer")
			_ = s.wait(another) // it was killed
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startService(t, config{Probation: 300 * time.Millisecond, UpgradeTimeout: upgradeTimeout, Socket: true, AllowUID: 12345, Address: freeAddress(t)})
			first := s.pid()
			want := s.measure()
			test.visit(t, s)
			if generation, pid := s.serving(); generation != 1 || pid != first || s.pid() != first {
				t.Errorf("want generation 1 of pid %d, have generation %d of pid %d, PID file %d", first, generation, pid, s.pid())
			}
			if have := s.settled(want); have != "" {
				t.Errorf("left behind: %s", have)
			}
			if test.name != "with no token" && test.name != "with another token" && test.name != "with a short token" {
				s.takeOver(2) // a good one still can
			} else {
				s.hangup(2)
			}
		})
	}
}

// refusedStart starts another process, which must fail and say why.
func (s *service) refusedStart(t *testing.T, why string) {
	t.Helper()
	mark := s.mark()
	another := s.launchAnother(syscall.SysProcAttr{})
	if err := s.wait(another); err == nil {
		t.Error("want the second start to fail")
	}
	s.awaitAfter(mark, "reason", func(l line) bool { return strings.HasPrefix(l.raw, "service: ") && strings.Contains(l.raw, why) })
}

// wait is command.Wait, bounded.
func (s *service) wait(command *exec.Cmd) error {
	s.t.Helper()
	late := time.AfterFunc(patience, func() {
		s.t.Errorf("process %d did not end within %v", command.Process.Pid, patience)
		_ = command.Process.Kill()
	})
	defer late.Stop()
	return command.Wait()
}

func readWhole(path string) (handoff.Token, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return handoff.Token{}, err
	}
	return handoff.ParseToken(content)
}

// visit connects to the takeover socket.
func (s *service) visit(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", s.config.takeoverSocket())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (s *service) awaitFailure(why string) {
	s.t.Helper()
	s.await("failure", func(l line) bool { return l.Message == "upgrade failed" && strings.Contains(l.Error, why) })
}

func TestInvariant2DeathOfThePredecessorDuringATakeover(t *testing.T) {
	s := startService(t, config{Probation: patience, Socket: true, Address: freeAddress(t)})
	another := s.launchAnother(syscall.SysProcAttr{})
	go func() { _ = another.Wait() }()
	s.await("probation", func(l line) bool { return l.Message == "serving on probation" })
	s.signal(s.pid(), syscall.SIGKILL)
	s.await("promotion", func(l line) bool { return l.Message == "serving" && l.Generation == 2 })
	if generation, pid := s.serving(); generation != 2 || pid != another.Process.Pid {
		t.Errorf("want generation 2 of pid %d, have generation %d of pid %d", another.Process.Pid, generation, pid)
	}
}

func TestTakeoverTokenIsNewForEachGenerationAndPrivate(t *testing.T) {
	s := startService(t, config{Probation: -1, Socket: true, Address: freeAddress(t)})
	path := s.config.takeoverSocket() + ".token"
	for _, private := range []string{path, s.config.takeoverSocket()} {
		info, err := os.Stat(private)
		if err != nil {
			t.Fatal(err)
		}
		if want, have := os.FileMode(0o600), info.Mode().Perm(); want != have {
			t.Errorf("mode of %s: want %v, have %v", private, want, have)
		}
	}
	before, err := os.ReadFile(path)
	if err != nil || len(before) != handoff.TokenSize {
		t.Fatalf("want %d bytes, have %d, %v", handoff.TokenSize, len(before), err)
	}
	s.takeOver(2)
	after, err := os.ReadFile(path)
	if err != nil || string(after) == string(before) {
		t.Errorf("want a new token for the second generation, have the same or %v", err)
	}
}
