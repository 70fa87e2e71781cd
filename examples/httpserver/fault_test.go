package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFault(t *testing.T) {
	tests := map[string]struct {
		file      string
		err       string // of begin
		unhealthy bool
		crash     time.Duration // -1 is never
	}{
		"empty":         {"\n", "", false, -1},
		"exit":          {"exit-before-ready\n", "fault: exit before ready", false, -1},
		"unhealthy":     {" unhealthy ", "", true, -1},
		"crash":         {"crash-after-ready 500ms\n", "", false, 500 * time.Millisecond},
		"crash at once": {"crash-after-ready 0s", "", false, 0},
		"crash, when":   {"crash-after-ready", "want a time", false, -1},
		"crash, sorry":  {"crash-after-ready -1s", "want a time", false, -1},
		"unknown":       {"explode\n", `unknown fault "explode"`, false, -1},
		"two lines":     {"unhealthy\nunhealthy\n", "unknown fault", false, -1},
		"much":          {strings.Repeat("unhealthy", 1<<20), "unknown fault", false, -1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "fault")
			if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			var f fault
			err := f.begin(path)
			if (err != nil) != (test.err != "") || err != nil && (!strings.Contains(err.Error(), test.err) || len(err.Error()) > 5000) {
				t.Errorf("got %v, want %q", err, test.err)
			}
			crash := time.Duration(-1)
			if f.crashAfter != nil {
				crash = *f.crashAfter
			}
			if crash != test.crash || f.unhealthy != test.unhealthy {
				t.Errorf("crash after %v, unhealthy %v; want %v, %v", crash, f.unhealthy, test.crash, test.unhealthy)
			}
			if crash < 0 && (f.healthy(t.Context()) != nil) != test.unhealthy {
				t.Errorf("health check does not say unhealthy %v", test.unhealthy)
			}
		})
	}
}

func TestNoFault(t *testing.T) {
	for _, path := range []string{"", filepath.Join(t.TempDir(), "none")} {
		var f fault
		if err := f.begin(path); err != nil || f.unhealthy || f.crashAfter != nil {
			t.Errorf("%q: got %v and %+v", path, err, &f)
		}
	}
	var f fault
	if err := f.begin(t.TempDir()); err == nil {
		t.Error("a directory was read as a fault")
	}
}
