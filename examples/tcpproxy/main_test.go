//go:build unix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/chain"
)

// faultVariable names a file with a time, after which a generation that finds it kills itself.
const faultVariable = "SEGUE_TCPPROXY_FAULT"

func TestMain(m *testing.M) {
	chain.Main(m, func() {
		if err := arm(os.Getenv(faultVariable)); err != nil {
			fmt.Fprintln(os.Stderr, "level=ERROR:", err)
			os.Exit(1)
		}
		main()
	})
}

func arm(path string) error {
	content, err := os.ReadFile(path)
	if path == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	after, err := time.ParseDuration(string(content))
	if err != nil {
		return err
	}
	os.Args = append(os.Args, "-probation", chain.Within.String()) // however slow the machine is, it does not live to ask for the commit
	time.AfterFunc(after, func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
	return nil
}

const probation = 200 * time.Millisecond * slowdown

func start(t *testing.T, environment []string, upstreams ...string) *chain.Chain {
	t.Helper()
	return chain.Start(t, environment, "-listen", "127.0.0.1:0", "-upstream", strings.Join(upstreams, ","),
		"-probation", probation.String(), "-drain", chain.Within.String())
}

const (
	connections = 500 / slowdown
	upgrades    = 20 / slowdown
)

// All connections move with each upgrade, in the middle of what they do: no byte is lost, repeated or reordered, none is reset and
// none reconnects.
func TestInvariant5BothSidesMoveWhileBytesFlow(t *testing.T) {
	tr := newTraffic(t)
	c := start(t, nil, tr.ln.Addr().String())
	tr.begin(c.Addr, connections)
	for generation := 2; generation <= upgrades+1; generation++ {
		mark := c.Mark()
		c.Upgrade(generation)
		c.Await(mark, fmt.Sprintf(`msg="connections moved" .*(moved=%d) `, 2*connections))
		if generation%5 == 0 { // until each of so many that fill the machine has got something, it takes seconds
			tr.progress()
		}
	}
	tr.end()
}

// The same with successors that die at random moments, two before each one that does not.
func TestInvariant2SuccessorsThatDieCostNoConnection(t *testing.T) {
	tr := newTraffic(t)
	fault := filepath.Join(t.TempDir(), "fault")
	c := start(t, []string{faultVariable + "=" + fault}, tr.ln.Addr().String())
	tr.begin(c.Addr, connections)
	c.Tolerate(`msg="upgrade failed"`)
	outcomes := make(map[string]int)
	for generation := 2; generation <= upgrades/4+1; generation++ {
		for range 2 {
			after := rand.N(2 * probation)
			if err := os.WriteFile(fault, []byte(after.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			mark := c.Mark()
			c.Signal(syscall.SIGHUP)
			failure := c.Await(mark, `msg="upgrade failed" (.*)`)
			if strings.Contains(failure, "rolled back") {
				outcomes["on probation"]++
			} else {
				outcomes["before"]++
			}
		}
		if err := os.Remove(fault); err != nil {
			t.Fatal(err)
		}
		mark := c.Mark()
		c.Upgrade(generation)
		c.Await(mark, fmt.Sprintf(`msg="connections moved" .*(moved=%d) `, 2*connections))
		tr.progress()
	}
	tr.end()
	t.Logf("successors died: %v", outcomes)
	if outcomes["on probation"] == 0 {
		t.Error("none died on probation")
	}
}
