//go:build unix

// Package chain is for tests of whole programs that replace themselves: a chain of generations, and the servers and
// clients of others that talk to them.
package chain

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
)

// Within is how long a test waits for anything. It is generous, because the machine is busy and the race detector slow.
const Within = 60 * time.Second

// mainVariable makes a test binary the program that it tests.
const mainVariable = "SEGUE_CHAIN_MAIN"

// Main is for TestMain: it runs the tests, or program, if this process is a generation that Start or another one has started.
func Main(m *testing.M, program func()) {
	if os.Getenv(mainVariable) != "" {
		program()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Chain is a service: one generation after another.
type Chain struct {
	// Addr is where it serves.
	Addr string
	// PIDFile names the generation to signal.
	PIDFile string

	// Log is that of all its generations.
	Log

	t         testing.TB
	first     *exec.Cmd
	tolerated []string
}

// Start starts the test binary as the first generation, with these flags and a PID file, and waits until it serves. The service ends with the test,
// which fails if a generation has reported an error.
func Start(t testing.TB, environment []string, flags ...string) *Chain {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &Chain{t: t, PIDFile: filepath.Join(t.TempDir(), "pid")}
	c.first = exec.Command(os.Args[0], append(flags, "-pidfile", c.PIDFile)...)
	c.first.Env = append(append(os.Environ(), environment...), mainVariable+"=1", "GORACE=atexit_sleep_ms=0")
	c.first.Stdout, c.first.Stderr = write, write
	c.first.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to be found at the end, whatever became of it
	err = c.first.Start()
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	c.Follow(read)
	t.Cleanup(c.end)
	c.Addr = c.Await(0, `msg=listening .*addr=(\S+) .*generation=1`)
	c.Await(0, `msg=(serving) .*generation=1`)
	return c
}

// end ends the service, by a signal if it can, and looks through its log.
func (c *Chain) end() {
	_ = c.TrySignal(syscall.SIGTERM)
	late := time.AfterFunc(Within, func() {
		c.t.Errorf("the service did not end within %v", Within)
		_ = syscall.Kill(-c.first.Process.Pid, syscall.SIGKILL) // this service's process group, and nothing else
	})
	defer late.Stop()
	c.AwaitEnd()
	_ = c.first.Wait()
lines:
	for _, line := range c.Lines(0) {
		for _, text := range c.tolerated {
			if strings.Contains(line, text) {
				continue lines
			}
		}
		for _, bad := range []string{"DATA RACE", "level=ERROR", "panic:"} {
			if strings.Contains(line, bad) {
				c.t.Error(line)
			}
		}
	}
	if c.t.Failed() {
		c.t.Log(strings.Join(c.Lines(max(0, c.Mark()-100)), "\n"))
	}
}

// Tolerate says that lines of the log with that text are no failure of the test.
func (c *Chain) Tolerate(text string) { c.tolerated = append(c.tolerated, text) }

// Await waits for a line from mark on that fits, and returns what the parentheses of the expression hold.
func (c *Chain) Await(mark int, expression string) string {
	c.t.Helper()
	held, err := c.Find(mark, Within, expression)
	if err != nil {
		c.t.Fatal(err)
	}
	return held[0]
}

// PID is that of the generation to signal.
func (c *Chain) PID() (int, error) {
	content, err := os.ReadFile(c.PIDFile)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(content)))
}

// TrySignal signals the generation that serves, if there is one.
func (c *Chain) TrySignal(signal syscall.Signal) error {
	pid, err := c.PID()
	if err != nil {
		return err
	}
	return syscall.Kill(pid, signal)
}

// Signal signals the generation that serves.
func (c *Chain) Signal(signal syscall.Signal) {
	c.t.Helper()
	if err := c.TrySignal(signal); err != nil {
		c.t.Fatalf("%v: %v", signal, err)
	}
}

// Upgrade asks for an upgrade and waits until that generation serves and its predecessor has nothing any more.
func (c *Chain) Upgrade(generation int) {
	c.t.Helper()
	mark := c.Mark()
	c.Signal(syscall.SIGHUP)
	c.Await(mark, fmt.Sprintf(`msg=(serving) .*generation=%d`, generation))
	c.Await(mark, fmt.Sprintf(`msg=(done) .*generation=%d `, generation-1))
}
