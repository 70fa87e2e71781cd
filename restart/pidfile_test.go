package restart

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestPIDFile(t *testing.T) {
	dir := t.TempDir()
	own := strconv.Itoa(os.Getpid()) + "\n"
	p := pidFile{filepath.Join(dir, "pid")}
	for _, before := range []string{"", "1\n", "garbage", own} {
		if before != "" {
			if err := os.WriteFile(p.path, []byte(before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.write(); err != nil {
			t.Fatal(err)
		}
		if have, err := os.ReadFile(p.path); err != nil || string(have) != own {
			t.Errorf("after %q: want %q, have %q, %v", before, own, have, err)
		}
	}
	info, err := os.Stat(p.path)
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("want the PID file alone, have %v, %v", entries, err)
	}
	if err := p.remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after remove: want it gone, have %v", err)
	}
	if err := p.write(); err != nil {
		t.Fatal(err)
	}
	if fresh, err := os.Stat(p.path); err != nil || fresh.Mode().Perm() != 0o644 {
		t.Errorf("mode: want 0644, have %v, %v (before %v)", fresh, err, info.Mode())
	}
}

func TestPIDFileOfAnotherProcessIsNotRemoved(t *testing.T) {
	p := pidFile{filepath.Join(t.TempDir(), "pid")}
	if err := os.WriteFile(p.path, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.path); err != nil {
		t.Error(err)
	}
}

func TestPIDFileErrorNamesThePath(t *testing.T) {
	p := pidFile{filepath.Join(t.TempDir(), "missing", "pid")}
	if err := p.write(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("want ErrNotExist, have %v", err)
	}
	if err := (pidFile{}).write(); err != nil {
		t.Errorf("no path: want no error, have %v", err)
	}
}
