//go:build linux

package broker

import (
	"fmt"
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
	_ "github.com/segue-go/segue/restart"
)

// patience is how long the harness waits for anything. It is generous, because the machine is busy and the race detector slow.
const patience = 30 * time.Second

// built is where the two programs are.
var built string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	directory, err := os.MkdirTemp("", "segue-broker-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(directory)
	if err := os.Chmod(directory, 0o755); err != nil { // other users are to run what is in it
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	arguments := []string{"build", "-o", directory + "/"}
	if raceEnabled {
		arguments = append(arguments, "-race")
	}
	if out, err := exec.Command("go", append(arguments, "./front", "./backend")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %s", err, out)
		return 1
	}
	// Generations whose predecessor has gone become this process's children, so that it can see and reap them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	built = directory
	return m.Run()
}

// program is a process, or a chain of generations, that is a process group of its own.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string // where it listens for clients
	log  chain.Log
}

// start runs a program until the end of the test, and waits until it listens.
func start(t *testing.T, name string, arguments ...string) *program {
	t.Helper()
	return startAs(t, nil, name, arguments...)
}

func startAs(t *testing.T, user *syscall.Credential, name string, arguments ...string) *program {
	t.Helper()
	look(t, name)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, cmd: exec.Command(filepath.Join(built, name), arguments...)}
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // by default each process waits 1 s at its exit
	p.cmd.Stderr = write
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: user}
	err = p.cmd.Start()
	_ = write.Close()
	if err != nil {
		t.Fatal(err)
	}
	p.log.Follow(read)
	t.Cleanup(p.end)
	p.addr = p.await(`msg=listening .*addr=(\S+)`)[0]
	return p
}

// look tells go test that the result depends on a program that is not part of the test binary. Package restart is imported for that, too.
func look(t *testing.T, name string) {
	t.Helper()
	sources, err := filepath.Glob(name + "/*.go")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources of %s: %v", name, err)
	}
	for _, source := range sources {
		if _, err := os.Stat(source); err != nil {
			t.Fatal(err)
		}
	}
}

// startBackend starts a backend whose handoff socket is in a directory of its own, and waits until it serves.
func startBackend(t *testing.T, arguments ...string) (p *program, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "handoff")
	return startBackendAt(t, socket, "127.0.0.1:0", arguments...), socket
}

func startBackendAt(t *testing.T, socket, listen string, arguments ...string) *program {
	t.Helper()
	p := start(t, "backend", append([]string{"-socket", socket, "-listen", listen, "-pidfile", socket + ".pid", "-probation", "200ms"}, arguments...)...)
	p.await(`msg=serving .*generation=1`)
	return p
}

// await returns what the parentheses of pattern hold in the first line, now or later, that matches.
func (p *program) await(pattern string) []string {
	p.t.Helper()
	held, err := p.log.Find(0, patience, pattern)
	if err != nil {
		p.t.Fatal(err)
	}
	return held
}

// end kills what is left of the process group, and looks at what it said.
func (p *program) end() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // this program's process group, and nothing else
	_ = p.cmd.Wait()
	for { // generations that became ours
		if _, err := syscall.Wait4(-p.cmd.Process.Pid, nil, 0, nil); err != nil && err != syscall.EINTR {
			break
		}
	}
	p.log.AwaitEnd() // all of them are dead: the pipe has ended
	for _, line := range p.log.Lines(0) {
		if strings.Contains(line, "DATA RACE") || strings.Contains(line, "panic:") {
			p.t.Error(line)
		}
		if p.t.Failed() {
			p.t.Log(filepath.Base(p.cmd.Path), line)
		}
	}
}

func (p *program) signal(signal syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
}

// figures is the last line of a front's log.
type figures struct {
	accepted, handedOver, reconnected, lost int
	fallbacks                               string
}

// stop ends a front politely.
func (p *program) stop() figures {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	found := p.await(`msg=done .*accepted=(\d+) handed_over=(\d+) reconnected=(\d+) lost=(\d+) .*fallbacks="(.*)"`)
	var n [4]int
	for i := range n {
		n[i], _ = strconv.Atoi(found[i])
	}
	return figures{n[0], n[1], n[2], n[3], found[4]}
}

// descriptors counts those that a process has open, without the pipes that package net keeps for splice(2) until the next garbage collection.
func (p *program) descriptors() (n int) {
	p.t.Helper()
	directory := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	names, err := os.ReadDir(directory)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, name := range names {
		target, err := os.Readlink(filepath.Join(directory, name.Name()))
		if err == nil && !strings.HasPrefix(target, "pipe:") {
			n++
		}
	}
	return n
}

// settles waits until a process has not more descriptors than before: those of connections that have just ended are closed soon.
func (p *program) settles(before int) {
	p.t.Helper()
	for late := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // nobody tells
		if have := p.descriptors(); have <= before {
			return
		} else if time.Now().After(late) {
			p.t.Errorf("%s: want %d descriptors as before, have %d", filepath.Base(p.cmd.Path), before, have)
			return
		}
	}
}

// signalIn signals the generation that the PID file names.
func signalIn(t *testing.T, pidFile string, signal syscall.Signal) {
	t.Helper()
	content, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
}
