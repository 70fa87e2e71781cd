package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// service is the server under test, that is, all its generations. It learns of them from the log that they share.
type service struct {
	addr    string
	pidFile string
	log     *os.File
	silent  chan struct{} // closed when no process has the log open any more: all have ended

	mu          sync.Mutex
	generations []*generation // in the order of their appearance
	tail        []string      // of the log
}

// generation is one process of the service. Only the first is our child, so it is signalled by a handle that cannot
// come to mean another process.
type generation struct {
	number, pid int
	process     *os.Process
	stopped     bool // it was told to end
}

// ended reports whether the process is gone. If it has become ours, nobody else would collect it.
func (g *generation) ended() bool {
	collect(g.pid)
	return errors.Is(g.process.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

const (
	lookAgain = 5 * time.Millisecond // where there is no event to wait for
	startTime = 10 * time.Second
	stopTime  = 5 * time.Second // for a polite end; and as long again for the other
	tailLines = 12
)

// startService starts a server on a free port and waits until it serves.
func startService(ctx context.Context, program, dir string) (s *service, err error) {
	log, logEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s = &service{pidFile: filepath.Join(dir, "pid"), log: log, silent: make(chan struct{})}
	adoptOrphans()
	cmd := exec.Command(program, "-addr", "127.0.0.1:0", "-pidfile", s.pidFile, "-probation", probation.String(), "-drain", drain.String())
	cmd.Dir, cmd.Stderr = dir, logEnd
	ownGroup(cmd)
	err = cmd.Start()
	logEnd.Close()
	if err != nil {
		log.Close()
		return nil, err
	}
	s.generations = []*generation{{number: 1, pid: cmd.Process.Pid, process: cmd.Process}}
	listening := make(chan string, 1)
	go s.read(listening)
	if err := s.awaitStart(ctx, listening); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// awaitStart waits for the address, which the log tells, and for the PID file, which it has to look for.
func (s *service) awaitStart(ctx context.Context, listening <-chan string) error {
	timer := time.NewTimer(startTime)
	defer timer.Stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		select {
		case s.addr = <-listening:
		case <-tick.C:
			if _, err := s.serving(); err == nil && s.addr != "" {
				return nil
			}
		case <-s.silent:
			return fmt.Errorf("the server ended at its start%s", s.lastWords())
		case <-timer.C:
			return fmt.Errorf("the server does not serve after %v%s", startTime, s.lastWords())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// listeningLine is what each generation logs at its start.
var listeningLine = regexp.MustCompile(`msg=listening pid=([0-9]+) addr=(\S+) generation=([0-9]+)`)

// read follows the log to its end, which is the end of the last process that writes to it.
func (s *service) read(listening chan<- string) {
	defer close(s.silent)
	defer s.log.Close()
	reader := bufio.NewReader(s.log)
	for {
		line, _, err := reader.ReadLine() // in pieces, if it is long
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.heard("demo: " + err.Error())
			}
			return
		}
		s.heard(string(line))
		found := listeningLine.FindStringSubmatch(string(line))
		if found == nil {
			continue
		}
		pid, _ := strconv.Atoi(found[1]) // what does not fit finds no process
		number, _ := strconv.Atoi(found[3])
		if number == 1 {
			select {
			case listening <- found[2]:
			default:
			}
			continue
		}
		if process, err := os.FindProcess(pid); err == nil {
			s.mu.Lock()
			s.generations = append(s.generations, &generation{number: number, pid: pid, process: process})
			s.mu.Unlock()
		}
	}
}

func (s *service) heard(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tail = append(s.tail, line); len(s.tail) > tailLines {
		s.tail = s.tail[1:]
	}
}

// lastWords is the end of the log, to go with an error.
func (s *service) lastWords() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tail) == 0 {
		return ""
	}
	return "; the end of its log:\n  " + strings.Join(s.tail, "\n  ")
}

// serving is the generation that the PID file names.
func (s *service) serving() (*generation, error) {
	content, err := os.ReadFile(s.pidFile)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.pidFile, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range slices.Backward(s.generations) {
		if g.pid == pid {
			return g, nil
		}
	}
	return nil, fmt.Errorf("%s names pid %d, of which the log says nothing", s.pidFile, pid)
}

// stop ends every generation, at first politely. One may still appear while it does.
func (s *service) stop() error {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if s.stopWith(signal) {
			return nil
		}
	}
	return fmt.Errorf("the server does not end, %v after SIGKILL", stopTime)
}

// stopWith signals each process once and looks until all have ended.
func (s *service) stopWith(signal os.Signal) bool {
	s.mu.Lock()
	for _, g := range s.generations {
		g.stopped = false
	}
	s.mu.Unlock()
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		silent := false
		select {
		case <-s.silent:
			silent = true
		default:
		}
		// In this order: who made itself known before the silence is asked after it.
		if alive := s.signalAll(signal); silent && !alive {
			return true
		}
		select {
		case <-tick.C:
		case <-timer.C:
			return false
		}
	}
}

// signalAll signals the processes that were not signalled yet and reports whether any is alive.
func (s *service) signalAll(signal os.Signal) (alive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.generations {
		if g.ended() {
			continue
		}
		alive = true
		if !g.stopped {
			g.stopped = true
			_ = g.process.Signal(signal) // it may just have ended
		}
	}
	return alive
}
