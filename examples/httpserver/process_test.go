//go:build unix

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mainVariable makes the test binary the server.
const mainVariable = "SEGUE_HTTPSERVER_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// started is a server process, or a chain of them, with the log that they share.
type started struct {
	t   *testing.T
	cmd *exec.Cmd
	log chan string

	mu        sync.Mutex
	processes map[int]*os.Process // that have logged something
}

var pidField = regexp.MustCompile(`pid=([0-9]+) `)

func start(t *testing.T, flags ...string) *started {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &started{t: t, cmd: exec.Command(os.Args[0], flags...), log: make(chan string, 1000), processes: make(map[int]*os.Process)}
	s.cmd.Env = append(os.Environ(), mainVariable+"=1")
	s.cmd.Stderr = write
	err = s.cmd.Start()
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.log)
		defer read.Close()
		for lines := bufio.NewScanner(read); lines.Scan(); {
			s.met(lines.Text())
			s.log <- lines.Text()
		}
	}()
	t.Cleanup(s.end)
	return s
}

// met takes a handle of a process that is new.
func (s *started) met(line string) {
	found := pidField.FindStringSubmatch(line)
	if found == nil {
		return
	}
	pid, _ := strconv.Atoi(found[1])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.processes[pid] == nil {
		s.processes[pid], _ = os.FindProcess(pid)
	}
}

// end kills what is left of the chain when a test has failed, one generation after the other: the death of one makes the
// next one log that it serves.
func (s *started) end() {
	for ok := true; ok; _, ok = <-s.log {
		s.mu.Lock()
		for _, process := range s.processes {
			process.Kill() // a handle: one that has ended is nobody else now
		}
		s.mu.Unlock()
	}
	s.cmd.Wait()
}

// waitFor reads the log up to a line that matches, and returns what its parentheses hold.
func (s *started) waitFor(pattern string) []string {
	s.t.Helper()
	var before []string
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-s.log:
			if found := regexp.MustCompile(pattern).FindStringSubmatch(line); found != nil {
				return found[1:]
			}
			before = append(before, line)
			if ok {
				continue
			}
		case <-timer.C:
		}
		s.t.Fatalf("no %q in the log:\n%s", pattern, strings.Join(before, "\n"))
	}
}

// signalIn signals the generation that the PID file names.
func signalIn(t *testing.T, pidFile string, signal syscall.Signal) {
	t.Helper()
	content, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(content), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
}
