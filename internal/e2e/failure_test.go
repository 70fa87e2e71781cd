//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// resumeWithin is what is promised: from the detection of a failure until the predecessor serves again.
const resumeWithin = time.Second

// failures is every way in which a successor may turn out bad before the commit.
var failures = []struct {
	name    string
	arrange func(s *service)
	is      []string      // sentinels of the error
	has     string        // in its text
	detect  time.Duration // how long the failure takes to show, by design
}{
	// The program.
	{"missing", func(s *service) { s.install("/nonexistent") }, []string{"ErrSpawn", "ErrNotExist"}, "app", 0},
	{"not executable", func(s *service) { s.install(s.file("plain", "#!/bin/sh\nexit 0\n", 0o644)) }, []string{"ErrSpawn", "ErrPermission"}, "app", 0},
	{"a directory", func(s *service) { s.install(s.config.Dir) }, []string{"ErrSpawn"}, "app", 0},
	{"garbage", func(s *service) { s.install(s.file("garbage", "\x00\x01\x02\x03", 0o755)) }, []string{"ErrSpawn"}, "exec format error", 0},
	{"wrong architecture", func(s *service) { s.install(s.file("foreign", foreignELF, 0o755)) }, []string{"ErrSpawn"}, "exec format error", 0},
	{"missing interpreter", func(s *service) { s.install(s.file("script", "#!/nonexistent\n", 0o755)) }, []string{"ErrSpawn"}, "no such file", 0},
	{"another program that exits", func(s *service) { s.install("/bin/true") }, []string{"ErrSuccessorExited"}, "exited", 0},
	{"another program that fails", func(s *service) { s.install("/bin/false") }, []string{"ErrSuccessorExited"}, "exit status 1", 0},
	{"another program that hangs", func(s *service) { s.install(s.file("sleep", "#!/bin/sh\nexec sleep 60\n", 0o755)) }, []string{"ErrUpgradeTimeout"}, "upgrade timed out", upgradeTimeout},
	{"preflight says no", func(s *service) { s.file("no-preflight", "", 0o644) }, []string{"ErrPreflight"}, "the test says no", 0},

	// The application.
	{"exits before ready", func(s *service) { s.setFault("exit before ready") }, []string{"ErrSuccessorExited"}, "exit status 3", 0},
	{"hangs before HELLO", func(s *service) { s.setFault("hang before HELLO") }, []string{"ErrUpgradeTimeout"}, "upgrade timed out", upgradeTimeout},
	{"hangs before ready", func(s *service) { s.setFault("hang before ready") }, []string{"ErrUpgradeTimeout"}, "upgrade timed out", upgradeTimeout},
	{"is stopped before ready", func(s *service) { s.setFault("stop before ready") }, []string{"ErrUpgradeTimeout"}, "upgrade timed out", upgradeTimeout},
	{"crashes on probation", func(s *service) { s.setFault("crash on probation") }, []string{"ErrRolledBack", "ErrSuccessorExited"}, "exit status 2", 0},
	{"exits on probation", func(s *service) { s.setFault("exit on probation") }, []string{"ErrRolledBack", "ErrSuccessorExited"}, "exited", 0},
	{"is stopped on probation", func(s *service) { s.setFault("stop on probation") }, []string{"ErrRolledBack", "ErrPingTimeout"}, "", pingDetection},
	{"is unhealthy", func(s *service) { s.setFault("unhealthy") }, []string{"ErrRolledBack", "ErrUnhealthy"}, "the test says so", failureProbation},

	// The protocol.
	{"sends garbage", func(s *service) { s.installImpostor("garbage") }, []string{"ErrTooLarge"}, "", 0},
	{"has another token", func(s *service) { s.installImpostor("stranger") }, []string{"ErrTokenMismatch"}, "", 0},
	{"says it is process 1", func(s *service) { s.installImpostor("liar") }, nil, "process 1 is no child", 0},
	{"says nothing", func(s *service) { s.installImpostor("mute") }, []string{"ErrUpgradeTimeout"}, "upgrade timed out", upgradeTimeout},
	{"stops itself", func(s *service) { s.installImpostor("stopped") }, []string{"ErrUpgradeTimeout"}, "upgrade timed out", upgradeTimeout},
	{"does not acknowledge", func(s *service) { s.installImpostor("no-ack") }, []string{"ErrUpgradeTimeout"}, "upgrade timed out", upgradeTimeout},
	{"acknowledges what was not offered", func(s *service) { s.installImpostor("wrong-ack") }, []string{"ErrAck"}, "", 0},
	{"never answers PING", func(s *service) { s.installImpostor("deaf") }, []string{"ErrPingTimeout"}, "", pingDetection},
	{"stops answering PING", func(s *service) { s.installImpostor("deaf-on-probation") }, []string{"ErrRolledBack", "ErrPingTimeout"}, "", pingDetection},
	{"sends garbage on probation", func(s *service) { s.installImpostor("garbage-on-probation") }, []string{"ErrRolledBack", "ErrTooLarge"}, "", 0},
	{"hangs up on probation", func(s *service) { s.installImpostor("hangs-up-on-probation") }, []string{"ErrRolledBack", "EOF"}, "closed the upgrade socket", 0},
	{"commits too early", func(s *service) { s.installImpostor("commits-too-early") }, []string{"ErrUnexpectedMessage"}, "", 0},
	{"never commits", func(s *service) { s.installImpostor("never-commits") }, []string{"ErrRolledBack", "ErrUpgradeTimeout"}, "no commit", upgradeTimeout + failureProbation},
	{"dies between commit and ready", func(s *service) { s.installImpostor("commits-and-dies") }, []string{"ErrRolledBack", "ErrSuccessorExited"}, "killed", 0},
}

const (
	upgradeTimeout   = 2 * time.Second
	failureProbation = 300 * time.Millisecond
	pingDetection    = 1500 * time.Millisecond // restart's defaults: one interval and the timeout, and some
)

// file makes a file in the service's directory and returns its path.
func (s *service) file(name, content string, mode os.FileMode) string {
	s.t.Helper()
	path := filepath.Join(s.config.Dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// foreignELF is the header of an executable for a machine that does not exist here: EM_S390 (elf(5)).
var foreignELF = "\x7fELF\x02\x02\x01\x00" + strings.Repeat("\x00", 8) + "\x00\x02\x00\x16\x00\x00\x00\x01" + strings.Repeat("\x00", 40)

// A failed upgrade changes nothing: the same process serves within a second of the detection, connections that were open
// stay, the error is typed and logged, nothing is left, and the next upgrade with a good program works.
func TestInvariant2AFailedUpgradeChangesNothing(t *testing.T) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			t.Parallel()
			s := startService(t, config{Probation: failureProbation, UpgradeTimeout: upgradeTimeout, Unix: true})
			first := s.pid()
			kept := dialKept(t, s.address)
			kept.ask(first)
			want := s.measure()

			failure.arrange(s)
			mark := s.mark()
			answer := s.upgrade()
			if answer.Error == "" {
				t.Fatal("want an error, have none")
			}
			for _, sentinel := range failure.is {
				if !slices.Contains(answer.Is, sentinel) {
					t.Errorf("want %s, have %v: %s", sentinel, answer.Is, answer.Error)
				}
			}
			if !strings.Contains(answer.Error, failure.has) {
				t.Errorf("want %q in the error, have %s", failure.has, answer.Error)
			}
			if limit := failure.detect + resumeWithin; answer.Took > limit {
				t.Errorf("want resumed within %v of the detection after %v, have %v", resumeWithin, failure.detect, answer.Took)
			}
			if generation, pid := s.serving(); generation != 1 || pid != first || s.pid() != first {
				t.Errorf("want generation 1 of pid %d, have generation %d of pid %d, PID file %d", first, generation, pid, s.pid())
			}
			s.awaitAfter(mark, "log line", func(l line) bool { return l.Message == "upgrade failed" && l.Error == answer.Error })
			kept.ask(first)
			if have := s.settled(want); have != "" {
				t.Errorf("left behind: %s", have)
			}

			s.install(ownBinary(t))
			s.setFault("")
			_ = os.Remove(filepath.Join(s.config.Dir, "no-preflight"))
			if answer := s.upgrade(); answer.Error != "" {
				t.Fatalf("next upgrade: %s", answer.Error)
			}
			s.await("next generation", func(l line) bool { return l.Message == "serving" && l.Generation == 2 })
			if generation, pid := s.serving(); generation != 2 || pid == first {
				t.Errorf("want generation 2 of another pid than %d, have %d of %d", first, generation, pid)
			}
			awaitExit(t, first)
			if kept.ask(s.pid()) != 2 || kept.closed {
				t.Error("the connection did not move to the second generation")
			}
			kept.conn.Close()
			last := s.pid()
			s.signal(last, syscall.SIGTERM)
			awaitExit(t, last)
			left, _ := filepath.Glob(filepath.Join(s.config.Dir, "*.sock"))
			pidFiles, _ := filepath.Glob(filepath.Join(s.config.Dir, "*pid*"))
			if left = append(left, pidFiles...); len(left) > 0 {
				t.Errorf("files left behind: %v", left)
			}
			if orphans := s.alive(); len(orphans) > 0 {
				t.Errorf("processes left behind: %v", orphans)
			}
		})
	}
}

// settled measures until the serving process is as it was, and returns the difference if it does not get there: the
// kernel closes a connection after its client does, not before.
func (s *service) settled(want footprint) string {
	s.t.Helper()
	difference := ""
	for range 100 {
		have := s.measure()
		difference = ""
		if w, h := fmt.Sprint(want.Descriptors), fmt.Sprint(have.Descriptors); w != h {
			difference += fmt.Sprintf("descriptors: want %s, have %s; ", w, h)
		}
		if have.Goroutines > want.Goroutines {
			difference += fmt.Sprintf("goroutines: want at most %d, have %d; ", want.Goroutines, have.Goroutines)
		}
		if len(have.Children) > 0 {
			difference += fmt.Sprintf("children: want none, have %v", have.Children)
		}
		if difference == "" {
			return ""
		}
		time.Sleep(10 * time.Millisecond)
	}
	return difference
}

// alive lists the processes of the service's group that are not dead.
func (s *service) alive() []int {
	var found []int
	for _, p := range processes() {
		if p.group == s.first.Process.Pid && p.state != "Z" {
			found = append(found, p.pid)
		}
	}
	return found
}
