//go:build linux

package bench

import (
	"fmt"
	"os"
	"testing"
)

// roleVariable says what the test binary is to be: itself, or one of the programs that are measured.
const roleVariable = "SEGUE_BENCH_ROLE"

var roles = map[string]func() error{
	"net":       func() error { return playServer(servePlain) },
	"segue":     func() error { return playServer(serveSegue) },
	"copying":   playCopying,
	"copyproxy": playCopyProxy,
}

func TestMain(m *testing.M) {
	name := os.Getenv(roleVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	play, ok := roles[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "unknown role %q\n", name)
		os.Exit(2)
	}
	if err := play(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}
