//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/chain"
)

func TestMain(m *testing.M) { chain.Main(m, main) }

const (
	probation = 200 * time.Millisecond * slowdown
	upgrades  = 20 / slowdown
)

func start(t *testing.T, flags ...string) *chain.Chain {
	t.Helper()
	return chain.Start(t, nil, append(flags, "-listen", "127.0.0.1:0", "-probation", probation.String(), "-drain", chain.Within.String())...)
}

// configFile is a configuration that a test changes.
type configFile struct {
	t    *testing.T
	path string
}

func newConfigFile(t *testing.T, text string) *configFile {
	c := &configFile{t, filepath.Join(t.TempDir(), "routes")}
	c.write(text)
	return c
}

func (c *configFile) write(text string) {
	c.t.Helper()
	if err := os.WriteFile(c.path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *configFile) routeAllTo(url string) { c.write(fmt.Sprintf("# all\nroute / %s\n", url)) }
