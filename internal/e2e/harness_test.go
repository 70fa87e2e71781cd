//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/segue-go/segue/internal/chain"
)

// patience is how long the harness waits for anything. It is generous, because the machine is busy and the race detector
// slow; what is promised within less is measured, not waited for.
const patience = 30 * time.Second

// service is a chain of generations under test.
type service struct {
	t       *testing.T
	config  config
	program string // what generations start: a link that a test can point elsewhere
	address string
	first   *exec.Cmd

	environment []string // of processes that are started, beside the test's own

	log chain.Log // of all its generations
}

// line is one line of a generation's log.
type line struct {
	Time time.Time `json:"time"`

	Message    string `json:"msg"`
	PID        int    `json:"pid"`
	Generation int    `json:"generation"`
	Address    string `json:"address"`
	Error      string `json:"error"`
	Successor  int    `json:"successor"`
	Visits     int    `json:"visits"`
	Cut        int    `json:"cut"`
	Moved      int    `json:"moved"`

	Moving   time.Duration `json:"moving"`
	PauseP50 time.Duration `json:"pause_p50"`
	PauseP99 time.Duration `json:"pause_p99"`

	raw string
}

// ownBinary is the test binary.
func ownBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// startService starts a first generation and waits until it serves.
func startService(t *testing.T, cfg config) *service {
	t.Helper()
	s := newService(t, cfg)
	s.launch(s.program)
	s.awaitFirst()
	return s
}

// newService prepares what startService starts.
func newService(t *testing.T, cfg config) *service {
	t.Helper()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("needs /proc: ", err)
	}
	// Generations whose predecessor has gone become this process's children, so that it can see and reap them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Skip("needs PR_SET_CHILD_SUBREAPER: ", err)
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.UpgradeTimeout == 0 {
		cfg.UpgradeTimeout = patience
	}
	s := &service{t: t, config: cfg, program: filepath.Join(cfg.Dir, "app")}
	s.install(ownBinary(t))
	return s
}

func (s *service) awaitFirst() {
	s.t.Helper()
	s.address = s.await("start", func(l line) bool { return l.Message == "started" }).Address
	s.await("first generation", func(l line) bool { return l.Message == "serving" && l.Generation == 1 })
}

// launch starts the program as the first generation. Its generations are a process group that is killed at the end.
func (s *service) launch(program string) {
	s.t.Helper()
	s.first = s.start(program, &syscall.SysProcAttr{Setpgid: true})
	s.t.Cleanup(func() {
		_ = syscall.Kill(-s.first.Process.Pid, syscall.SIGKILL) // this service's process group, and nothing else
		_ = s.first.Wait()
		s.reapOrphans()
		s.log.AwaitEnd() // all of them are dead: the pipes have ended
		for _, l := range s.linesAfter(0) {
			if strings.Contains(l.raw, "DATA RACE") {
				s.t.Error("a generation reports a data race")
				break
			}
		}
		if s.t.Failed() {
			s.dump()
		}
	})
}

// launchAnother starts the program beside the generations that there are. It ends with them.
func (s *service) launchAnother(attributes syscall.SysProcAttr) *exec.Cmd {
	s.t.Helper()
	attributes.Setpgid, attributes.Pgid = true, s.first.Process.Pid
	return s.start(s.program, &attributes)
}

func (s *service) start(program string, attributes *syscall.SysProcAttr) *exec.Cmd {
	s.t.Helper()
	encoded, err := json.Marshal(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer write.Close()
	command := exec.Command(program)
	command.Env = append(os.Environ(), roleVariable+"=service", configVariable+"="+string(encoded),
		"GORACE=atexit_sleep_ms=0") // by default each process waits 1 s at its exit
	command.Env = append(command.Env, s.environment...)
	command.SysProcAttr = attributes
	command.Stdout, command.Stderr = write, write
	if err := command.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.log.Follow(read)
	return command
}

// reapOrphans waits for what is left of the group.
func (s *service) reapOrphans() {
	for {
		if _, err := syscall.Wait4(-s.first.Process.Pid, nil, 0, nil); err != nil && err != syscall.EINTR {
			return
		}
	}
}

func (s *service) dump() {
	for _, text := range s.log.Lines(max(0, s.mark()-100)) {
		s.t.Log(text)
	}
}

func parse(text string) line {
	l := line{raw: text}
	_ = json.Unmarshal([]byte(text), &l) // a panic's trace is no JSON
	return l
}

// awaitAfter returns the first line, now or later, that fits. It is not told of lines before the mark.
func (s *service) awaitAfter(mark int, what string, fits func(line) bool) line {
	s.t.Helper()
	text, err := s.log.Await(mark, patience, func(text string) bool { return fits(parse(text)) })
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	return parse(text)
}

func (s *service) await(what string, fits func(line) bool) line {
	s.t.Helper()
	return s.awaitAfter(0, what, fits)
}

// mark is the end of the log so far.
func (s *service) mark() int { return s.log.Mark() }

// linesAfter is what the log has after the mark.
func (s *service) linesAfter(mark int) (lines []line) {
	for _, text := range s.log.Lines(mark) {
		lines = append(lines, parse(text))
	}
	return lines
}

// install points the program at another binary, in one step.
func (s *service) install(target string) {
	s.t.Helper()
	next := s.program + ".next"
	if err := os.Symlink(target, next); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(next, s.program); err != nil {
		s.t.Fatal(err)
	}
}

// installImpostor makes the next successor an impostor.
func (s *service) installImpostor(name string) {
	s.t.Helper()
	link := filepath.Join(s.config.Dir, impostorPrefix+name)
	if err := os.Symlink(ownBinary(s.t), link); err != nil && !os.IsExist(err) {
		s.t.Fatal(err)
	}
	s.install(link)
}

// setFault makes the next successors misbehave, or behave if it is empty.
func (s *service) setFault(fault string) {
	s.t.Helper()
	if err := os.WriteFile(s.config.faultFile(), []byte(fault), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// pid is the process to signal.
func (s *service) pid() int {
	s.t.Helper()
	content, err := os.ReadFile(s.config.pidFile())
	if err != nil {
		s.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

func (s *service) signal(pid int, signal syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(pid, signal); err != nil {
		s.t.Fatalf("signal %v to %d: %v", signal, pid, err)
	}
}

// hangup asks for an upgrade and waits until generation number serves.
func (s *service) hangup(number int) line {
	s.t.Helper()
	mark := s.mark()
	s.signal(s.pid(), syscall.SIGHUP)
	return s.awaitAfter(mark, fmt.Sprintf("generation %d", number), func(l line) bool {
		return l.Message == "serving" && l.Generation == number
	})
}

// get makes one request on a connection of its own.
func (s *service) get(path string) string {
	s.t.Helper()
	body, err := s.tryGet(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return body
}

// tryGet returns when the server has closed its end, so that nothing of the request is left there.
func (s *service) tryGet(path string) (string, error) {
	conn, err := net.DialTimeout("tcp", s.address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", path); err != nil {
		return "", err
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if _, err := reader.ReadByte(); err != io.EOF {
		return "", fmt.Errorf("%s: after the response: want EOF, have %v", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", path, response.Status, body)
	}
	return string(body), nil
}

// upgrade calls Upgrade in the serving generation.
func (s *service) upgrade() upgradeAnswer {
	s.t.Helper()
	var answer upgradeAnswer
	if err := json.Unmarshal([]byte(s.get("/upgrade")), &answer); err != nil {
		s.t.Fatal(err)
	}
	return answer
}

// serving asks who answers.
func (s *service) serving() (generation, pid int) {
	s.t.Helper()
	if _, err := fmt.Sscanf(s.get("/"), "generation %d pid %d", &generation, &pid); err != nil {
		s.t.Fatal(err)
	}
	return generation, pid
}
