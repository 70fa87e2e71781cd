//go:build unix

package chain

import (
	"bytes"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Find returns the path of a program of others, by its name or one of the patterns of where it may be, or skips the test.
func Find(t testing.TB, name, debianPackage string, patterns ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	for _, pattern := range patterns {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	t.Skipf("%s is not installed (Debian's package %s): %v", name, debianPackage, err)
	return ""
}

// FreePort is a port of 127.0.0.1 that nobody listens on, and that no client of another test gets meanwhile: those are given ports from
// 32768 on (ip_local_port_range of ip(7)).
func FreePort(t testing.TB) string {
	t.Helper()
	const from, to, tries = 20000, 32768, 100
	var err error
	for range tries {
		port := strconv.Itoa(from + rand.IntN(to-from))
		var ln net.Listener
		if ln, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			_ = ln.Close()
			return port
		}
	}
	t.Fatal(err)
	return ""
}

// Accepts is for Daemon: a server is ready when it accepts connections.
func Accepts(address string) (ready func() error) {
	return func() error {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// Daemon runs a server of others in the foreground until the test ends, and waits until it is ready. How ends it.
func Daemon(t testing.TB, cmd *exec.Cmd, ready func() error, how syscall.Signal) {
	t.Helper()
	var output bytes.Buffer
	var mu sync.Mutex
	cmd.Stdout = writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		output.Write(p[:min(len(p), max(0, 1<<20-output.Len()))])
		return len(p), nil
	})
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = Within
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(how)
		late := time.AfterFunc(Within, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		<-ended
		if t.Failed() {
			t.Logf("%s: %s", cmd.Path, output.Bytes())
		}
	})
	for deadline := time.Now().Add(Within); ; time.Sleep(10 * time.Millisecond) { // nothing tells
		notReady := ready()
		if notReady == nil {
			return
		}
		select {
		case err := <-ended:
			ended <- err
			mu.Lock()
			defer mu.Unlock()
			t.Fatalf("%s has ended: %v: %s", cmd.Path, err, output.Bytes())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready: %v", cmd.Path, notReady)
		}
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
