package listener

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// isPath reports whether the address of a Unix socket is a path, and not an abstract name (Linux: a first byte of @ or
// NUL, unix(7)) or empty, by which Linux chooses an abstract name.
func isPath(address string) bool {
	if address == "" {
		return false
	}
	abstract := address[0] == '@' || address[0] == 0
	return !abstract || runtime.GOOS != "linux" && runtime.GOOS != "android"
}

// isPath reports whether the request is for a Unix socket with a file.
func (r request) isPath() bool {
	return strings.HasPrefix(r.network, "unix") && isPath(r.address)
}

// absolute makes the path of a Unix socket absolute, so that it means the same after a chdir and in another process.
func (r request) absolute() (request, error) {
	if !r.isPath() {
		return r, nil
	}
	path, err := filepath.Abs(r.address)
	if err != nil {
		return r, err
	}
	if len(path) > maxPath {
		return r, fmt.Errorf("absolute path has %d bytes, a Unix socket's holds %d: %w", len(path), maxPath, syscall.EINVAL)
	}
	r.address = path
	return r, nil
}

// absolute is filepath.Abs for a path that a predecessor bound.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// socketFile is the file of a Unix socket as it was when it was bound or inherited.
type socketFile struct {
	info fs.FileInfo
	own  bool // bound by this process
}

// remember notes the file of a Unix socket for Close. The caller holds mu.
func (s *Set) remember(path string, own bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return // gone already
	}
	if s.paths == nil {
		s.paths = make(map[string]socketFile)
	}
	s.paths[path] = socketFile{info, own}
}

// sameSocketFile reports whether two paths name one socket file, for instance through /var/run -> /run.
func sameSocketFile(a, b string) bool {
	if a == b {
		return true
	}
	ai, err := os.Stat(a)
	if err != nil || ai.Mode().Type() != fs.ModeSocket {
		return false
	}
	bi, err := os.Stat(b)
	return err == nil && os.SameFile(ai, bi)
}

// removeLeftover removes the file at path if it is a socket that no process has bound any more, and reports whether it did or the
// file was gone. Connecting tells: it is refused then. (It is refused also in the moment between another process's
// bind and listen; nothing can be done about that here.)
func removeLeftover(ctx context.Context, network, path string) bool {
	was, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil || was.Mode().Type() != fs.ModeSocket {
		return false
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, path)
	switch {
	case err == nil:
		_ = c.Close()
		return false
	case errors.Is(err, fs.ErrNotExist):
		return true
	case !errors.Is(err, syscall.ECONNREFUSED):
		return false // a full backlog, another type of socket, no permission: somebody lives there
	}
	return unlinkSocket(path, was) == nil
}

// unlinkSocket removes the socket file at path if it is still the one that was there before. A file that is gone is no error.
func unlinkSocket(path string, was fs.FileInfo) error {
	is, err := os.Lstat(path)
	if err == nil {
		if is.Mode().Type() != fs.ModeSocket || !os.SameFile(was, is) {
			return nil
		}
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listener: unlink socket: %w", err)
	}
	return nil
}
