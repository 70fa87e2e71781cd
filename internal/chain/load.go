//go:build unix

package chain

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// Load is a client program of others, which runs while a test upgrades what it talks to.
type Load struct {
	t       testing.TB
	name    string
	signal  os.Signal
	process atomic.Pointer[os.Process] // that runs
	over    atomic.Bool
	cancel  context.CancelFunc
	done    chan struct{}
	outputs []string
	err     error
}

// Run starts a program. With a signal it runs until End sends that, without one again and again until End is called. It is killed if the
// test ends before, or it takes too long.
func Run(t testing.TB, signal os.Signal, name string, args ...string) *Load {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*Within)
	l := &Load{t: t, name: name, signal: signal, cancel: cancel, done: make(chan struct{})}
	t.Cleanup(func() {
		cancel()
		<-l.done
	})
	started := make(chan struct{})
	go l.run(ctx, started, args)
	<-started
	return l
}

func (l *Load) run(ctx context.Context, started chan<- struct{}, args []string) {
	defer close(l.done)
	for first := true; l.err == nil && (first || l.signal == nil && !l.over.Load()); first = false {
		var output bytes.Buffer
		cmd := exec.CommandContext(ctx, l.name, args...)
		cmd.WaitDelay = Within
		cmd.Stdout, cmd.Stderr = &output, &output
		l.err = cmd.Start()
		l.process.Store(cmd.Process)
		if first {
			close(started)
		}
		if l.err == nil {
			l.err = cmd.Wait()
		}
		l.outputs = append(l.outputs, output.String())
	}
}

// End returns what each run of the program has said. That one of them failed is the test's failure.
func (l *Load) End() []string {
	l.t.Helper()
	l.over.Store(true)
	if process := l.process.Load(); l.signal != nil && process != nil {
		_ = process.Signal(l.signal)
	}
	<-l.done
	if l.err != nil {
		l.t.Fatalf("%s: %v: %s", l.name, l.err, strings.Join(l.outputs, "\n"))
	}
	return l.outputs
}
