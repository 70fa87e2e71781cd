//go:build linux

package e2e

import (
	"fmt"
	"os"
	"testing"
)

// roleVariable says what the test binary is to be. Successors inherit it with the environment.
const roleVariable = "SEGUE_E2E_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		os.Exit(m.Run())
	default:
		// The name by which it was started decides: a test puts an impostor in the service's place by a link.
		if err := play(role); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
			os.Exit(1)
		}
	}
}

func play(string) error {
	if name := impostorName(); name != "" {
		return playImpostor(name)
	}
	return playService()
}
