//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestUpgradeOnHangup(t *testing.T) {
	s := startService(t, config{Probation: -1})
	for number := 2; number <= 4; number++ {
		before := s.pid()
		s.hangup(number)
		generation, pid := s.serving()
		if generation != number || pid != s.pid() || pid == before {
			t.Errorf("want generation %d of pid %d, not %d; have generation %d pid %d", number, s.pid(), before, generation, pid)
		}
		awaitExit(t, before)
	}
}

func TestStateTravelsToEachSuccessor(t *testing.T) {
	s := startService(t, config{Probation: -1})
	for number := 2; number <= 4; number++ {
		s.hangup(number)
		started := s.await("start", func(l line) bool { return l.Message == "started" && l.Generation == number })
		if want, have := number-1, started.Visits; want != have {
			t.Errorf("generation %d: want %d, have %d", number, want, have)
		}
	}
}

// Each generation writes on where the one before it stopped: it is one open file. (Create would have emptied it.)
func TestFileTravelsToEachSuccessor(t *testing.T) {
	s := startService(t, config{Probation: -1})
	want := "generation 1\n"
	for number := 2; number <= 4; number++ {
		s.hangup(number)
		want += fmt.Sprintf("generation %d\n", number)
	}
	have, err := os.ReadFile(filepath.Join(s.config.Dir, "journal"))
	if err != nil || string(have) != want {
		t.Errorf("want %q, have %q, %v", want, have, err)
	}
}

func TestUpgradeAfterChangeOfDirectoryWithRelativeProgram(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "elsewhere"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	s := newService(t, config{Dir: dir, Probation: -1, Chdir: filepath.Join(dir, "elsewhere")})
	s.launch("./app")
	s.awaitFirst()
	for number := 2; number <= 3; number++ {
		s.hangup(number)
		if generation, _ := s.serving(); generation != number {
			t.Errorf("want generation %d, have %d", number, generation)
		}
	}
}

func TestStopSignalDrains(t *testing.T) {
	s := startService(t, config{Unix: true})
	slow := make(chan error, 1)
	begun := s.begin("/slow?d=300ms", slow)
	<-begun
	s.signal(s.pid(), syscall.SIGTERM)
	if err := <-slow; err != nil {
		t.Errorf("request under way: %v", err)
	}
	if err := s.first.Wait(); err != nil {
		t.Errorf("exit: want success, have %v", err)
	}
	for _, path := range []string{s.config.pidFile(), s.config.unixSocket()} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s: want it gone, have %v", path, err)
		}
	}
	if _, err := net.Dial("tcp", s.address); err == nil {
		t.Error("somebody still listens")
	}
}

// begin makes a request and tells when the server has read it, which its answer to Expect shows.
func (s *service) begin(path string, done chan<- error) <-chan struct{} {
	begun := make(chan struct{})
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path); err != nil {
		s.t.Fatal(err)
	}
	// The server is known to have read it once its receive queue is empty: nothing is left unacknowledged and unread.
	go func() {
		defer conn.Close()
		for !s.hasRead(conn) {
			time.Sleep(time.Millisecond)
		}
		close(begun)
		buffer := make([]byte, 4096)
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		n, err := conn.Read(buffer)
		if err == nil && !strings.HasPrefix(string(buffer[:n]), "HTTP/1.1 200") {
			err = fmt.Errorf("unexpected answer %q", buffer[:n])
		}
		done <- err
	}()
	return begun
}

// hasRead reports whether the server's end of conn, which is in /proc/net/tcp, is established and has an empty receive queue.
func (s *service) hasRead(conn net.Conn) bool {
	client, server := conn.LocalAddr().(*net.TCPAddr).Port, conn.RemoteAddr().(*net.TCPAddr).Port
	want := fmt.Sprintf("0100007F:%04X 0100007F:%04X 01 ", server, client)
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		s.t.Error(err)
		return true
	}
	for entry := range strings.Lines(string(table)) {
		if _, rest, found := strings.Cut(entry, want); found {
			return strings.HasPrefix(strings.SplitN(rest, ":", 2)[1], "00000000")
		}
	}
	return false
}

func TestSecondHangupWaitsItsTurnAndIsServed(t *testing.T) {
	for _, test := range []struct {
		name string
		when func(l line) bool
	}{
		{"while the successor starts", func(l line) bool { return l.Message == "upgrading" && l.Generation == 1 }},
		{"during probation", func(l line) bool { return l.Message == "serving on probation" && l.Generation == 2 }},
		{"while the predecessor drains", func(l line) bool { return l.Message == "serving" && l.Generation == 2 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startService(t, config{Probation: 100 * time.Millisecond, Drain: patience})
			first := s.pid()
			slow := make(chan error, 1)
			<-s.begin("/slow?d=1s", slow) // keeps the first generation draining
			s.signal(first, syscall.SIGHUP)
			s.await(test.name, test.when)
			s.signal(first, syscall.SIGHUP) // whoever serves now: the operator read the PID file a moment ago
			s.await("third generation", func(l line) bool { return l.Message == "serving" && l.Generation == 3 })
			if err := <-slow; err != nil {
				t.Errorf("request in the first generation: %v", err)
			}
			if generation, _ := s.serving(); generation != 3 {
				t.Errorf("want generation 3, have %d", generation)
			}
		})
	}
}

func TestUpgradeWhilePredecessorDrainsSaysSo(t *testing.T) {
	s := startService(t, config{Probation: -1, Drain: patience})
	slow := make(chan error, 1)
	<-s.begin("/slow?d=1s", slow)
	s.hangup(2)
	s.signal(s.pid(), syscall.SIGHUP)
	s.await("notice", func(l line) bool {
		return l.Message == "upgrade waits until the predecessor has drained" && l.PID == s.pid()
	})
	s.await("third generation", func(l line) bool { return l.Message == "serving" && l.Generation == 3 })
	if err := <-slow; err != nil {
		t.Error(err)
	}
}

func TestInvariant8NothingReachesTheServicesChildren(t *testing.T) {
	s := startService(t, config{Probation: -1})
	want := s.get("/child")
	s.hangup(2)
	s.hangup(3)
	have := s.get("/child")
	for _, name := range []string{"TABLEFLIP", "SEGUE_UPGRADE", "LISTEN_FDS"} {
		if strings.Contains(have, name) {
			t.Errorf("environment of a child of a successor has %s", name)
		}
	}
	if strings.Count(want, "->") != strings.Count(have, "->") {
		t.Errorf("descriptors of a child: want as in the first generation\n%s\nhave\n%s", want, have)
	}
}

func TestUnixSocketFileStaysUntilTheLastGenerationLeaves(t *testing.T) {
	s := startService(t, config{Probation: -1, Unix: true})
	for number := 2; number <= 4; number++ {
		before := s.pid()
		s.hangup(number)
		awaitExit(t, before)
		conn, err := net.Dial("unix", s.config.unixSocket())
		if err != nil {
			t.Fatalf("generation %d: %v", number, err)
		}
		conn.Close()
	}
	last := s.pid()
	s.signal(last, syscall.SIGTERM)
	awaitExit(t, last)
	if left, _ := filepath.Glob(filepath.Join(s.config.Dir, "*.sock")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPacketsAreAnsweredThroughUpgrades(t *testing.T) {
	s := startService(t, config{Probation: -1, Packet: true})
	address := s.await("packet socket", func(l line) bool { return l.Message == "packets" }).Address
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for number := 1; number <= 4; number++ {
		if number > 1 {
			s.hangup(number)
		}
		for i := range 50 {
			want := fmt.Sprintf("%d packet %d", number, i)
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := fmt.Fprintf(conn, "packet %d", i); err != nil {
				t.Fatal(err)
			}
			buffer := make([]byte, 100)
			n, err := conn.Read(buffer)
			if err != nil {
				t.Fatalf("%s: %v", want, err)
			}
			if have := string(buffer[:n]); want != have {
				t.Errorf("want %q, have %q", want, have)
			}
		}
	}
}

// A predecessor may have things to do after Run. An upgrade that was asked of it meanwhile is not lost, and tableflip's check
// for its end is waited for.
func TestUpgradeWaitsForTheEndOfThePredecessorsProcess(t *testing.T) {
	s := startService(t, config{Probation: -1, Cleanup: 2 * time.Second})
	first := s.pid()
	s.hangup(2)
	s.await("end of Run", func(l line) bool { return l.Message == "done" && l.PID == first })
	s.hangup(3)
	for _, p := range processes() {
		if p.pid == first && p.state != "Z" {
			t.Error("the third generation came before the first had ended")
		}
	}
}

// A program that says that it is ready without having been committed has made tableflip believe that this process is replaced.
// It is killed, this process serves on, and says why it cannot be upgraded any more.
func TestInvariant2ASuccessorThatIsReadyUnbidden(t *testing.T) {
	s := startService(t, config{Probation: -1, UpgradeTimeout: upgradeTimeout})
	first := s.pid()
	s.installImpostor("tableflip")
	answer := s.upgrade()
	if !slices.Contains(answer.Is, "ErrUpgradeTimeout") {
		t.Errorf("want ErrUpgradeTimeout, have %v: %s", answer.Is, answer.Error)
	}
	if left := s.alive(); len(left) != 1 || left[0] != first {
		t.Errorf("want process %d alone, have %v", first, left)
	}
	descriptors := s.measure().Descriptors
	s.install(ownBinary(t))
	answer = s.upgrade()
	if !slices.Contains(answer.Is, "ErrSpawn") {
		t.Errorf("want ErrSpawn, have %v: %s", answer.Is, answer.Error)
	}
	if generation, pid := s.serving(); generation != 1 || pid != first {
		t.Errorf("want generation 1 of pid %d, have generation %d of pid %d", first, generation, pid)
	}
	if want, have := fmt.Sprint(descriptors), fmt.Sprint(s.measure().Descriptors); want != have {
		t.Errorf("descriptors: want %s, have %s", want, have)
	}
}

// The end of Run's context drains; a second stop signal ends that.
func TestSecondStopSignalEndsTheDrain(t *testing.T) {
	s := startService(t, config{Drain: time.Hour})
	first := s.pid()
	dialKept(t, s.address).ask(first) // stays
	s.signal(first, syscall.SIGTERM)
	s.await("drain", func(l line) bool { return l.Message == "stopping" })
	s.signal(first, syscall.SIGTERM)
	awaitExit(t, first)
	if cut := s.cutBy(first); cut != 1 {
		t.Errorf("cut: want 1, have %d", cut)
	}
}
