package restart

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pidFile names the process to signal. An empty path means that nobody wants to know.
type pidFile struct{ path string }

// write puts this process's number there, unless it is there already: in one step, so that no reader ever sees half of
// it or none.
func (p pidFile) write() error {
	if p.path == "" || p.isOwn() {
		return nil
	}
	temporary, err := os.CreateTemp(filepath.Dir(p.path), "."+filepath.Base(p.path)+"-*")
	if err != nil {
		return fmt.Errorf("write PID file %s: %w", p.path, err)
	}
	_, err = temporary.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	err = errors.Join(err, temporary.Chmod(0o644), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), p.path)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
		return fmt.Errorf("write PID file %s: %w", p.path, err)
	}
	return nil
}

// remove takes the file away if it still names this process.
func (p pidFile) remove() error {
	if p.path == "" || !p.isOwn() {
		return nil
	}
	if err := os.Remove(p.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (p pidFile) isOwn() bool {
	content, err := os.ReadFile(p.path)
	return err == nil && strings.TrimSpace(string(content)) == strconv.Itoa(os.Getpid())
}
