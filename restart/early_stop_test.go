//go:build linux

package restart

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/scm"
)

// heir is a spawner to which a predecessor left something.
type heir struct {
	loner
	left *inheritance
}

func (h heir) inherited() *inheritance { return h.left }

// A stop signal ends the wait for a predecessor that does not answer, because it drains for its own predecessor, or is stopped.
func TestStopSignalWhileThePredecessorIsAwaited(t *testing.T) {
	token, err := (&handoff.TokenStore{}).Issue()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		// prepare returns what New finds, and the predecessor's end of the session once there is one.
		prepare func(t *testing.T, options *Options) (spawner, func() *net.UnixConn)
	}{
		{"in place", func(t *testing.T, _ *Options) (spawner, func() *net.UnixConn) {
			local, remote, err := scm.Pair()
			if err != nil {
				t.Fatal(err)
			}
			return heir{left: &inheritance{socket: remote, token: token}}, func() *net.UnixConn { return local }
		}},
		{"takeover", func(t *testing.T, options *Options) (spawner, func() *net.UnixConn) {
			options.Socket = filepath.Join(t.TempDir(), "s")
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: options.Socket, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ln.Close() })
			if err := os.WriteFile(options.Socket+tokenSuffix, token.Expose(), 0o600); err != nil {
				t.Fatal(err)
			}
			return loner{}, func() *net.UnixConn {
				conn, err := ln.AcceptUnix()
				if err != nil {
					t.Fatal(err)
				}
				return conn
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			options := lonelyOptions(t)
			options.StopSignals = []os.Signal{syscall.SIGUSR2}
			options.UpgradeTimeout = time.Hour
			spawner, accept := test.prepare(t, &options)
			options, err := options.resolved()
			if err != nil {
				t.Fatal(err)
			}
			made := make(chan error, 1)
			go func() {
				_, err := newGeneration(options, spawner)
				made <- err
			}()
			predecessor := handoff.NewSession(accept())
			defer predecessor.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if message, err := predecessor.Receive(ctx); err != nil {
				t.Fatalf("want HELLO, have %v, %v", message, err)
			}
			if err := syscall.Kill(os.Getpid(), syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-made:
				if !errors.Is(err, ErrStopSignal) {
					t.Errorf("want ErrStopSignal, have %v", err)
				}
			case <-ctx.Done():
				t.Fatal("New waits on")
			}
			if message, err := predecessor.Receive(ctx); !isGone(err) {
				t.Errorf("want the end of the session, have %v, %v", message, err)
			}
		})
	}
}

// A stop signal that comes when there is nothing to wait for any more is Run's.
func TestStopSignalBetweenNewAndRun(t *testing.T) {
	g := newTwin(t)
	g.stop <- syscall.SIGTERM
	runTwin(t, g).wait()
}
