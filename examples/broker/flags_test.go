//go:build linux

package broker

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadFlags(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		command string
		status  int
		says    string
	}{
		{"front", 2, "nobody serves"},
		{"front -backend x extra", 2, `unexpected argument "extra"`},
		{"front -backend x -bare", 2, "-bare and -token go together"},
		{"front -backend x -token 00", 2, "-bare and -token go together"},
		{"front -backend x -bare -token secret", 2, "not made of hex digits"},
		{"front -backend x -bare -token 00ff", 2, "token of wrong length: 2 bytes, want 16"},
		{"front -backend x -bare -relay -token 00", 2, "-relay needs the framed form"},
		{"front -backend x -deadline 0s", 2, "-deadline must be positive"},
		{"front -backend x -patience -1s", 2, "must not be negative"},
		{"front -backend x -listen " + taken.Addr().String(), 1, "address already in use"},
		{"backend", 2, "-socket is missing"},
		{"backend -socket x extra", 2, `unexpected argument "extra"`},
		{"backend -socket x -bare", 2, "-bare and -token go together"},
		{"backend -socket x -bare -token 0g", 2, "not made of hex digits"},
		{"backend -socket x -bare -token " + strings.Repeat("00", 17), 2, "token of wrong length: 17 bytes, want 16"},
		{"backend -socket x -drain -1s", 2, "must not be negative"},
		{"backend -socket " + file + " -listen 127.0.0.1:0", 1, file},
		{"backend -socket /missing/x -listen 127.0.0.1:0", 1, "/missing/x"},
	} {
		words := strings.Fields(test.command)
		look(t, words[0])
		cmd := exec.CommandContext(t.Context(), filepath.Join(built, words[0]), words[1:]...)
		said, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != test.status || !strings.Contains(string(said), test.says) {
			t.Errorf("%s: %v, %s; want status %d and %q", test.command, err, said, test.status, test.says)
		}
		if strings.Contains(string(said), "secret") {
			t.Errorf("%s: says the token: %s", test.command, said)
		}
	}
}
