//go:build linux || darwin || freebsd

package restart

import (
	"errors"
	"fmt"
	"os"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"
)

// slot is a descriptor that tableflip passes to every successor, and whose content changes with each upgrade.
//
// tableflip.Fds can add a file and never take one out again. A file added for each upgrade would stay open in this
// process: a leak, and, since it is a copy of the successor's end of the upgrade socket, the predecessor would never see
// EOF when the successor dies. So tableflip is given one descriptor per process, and dup3(2) puts under that number what
// is to be passed on, or, between upgrades, the read end of a pipe that nobody writes to.
type slot struct {
	fd      int
	plug    *os.File
	content identity // what fd refers to now, as far as this process knows
}

// identity tells open files apart (fstat(2)).
type identity struct{ device, inode uint64 }

// newSlot adds a slot to fds.
func newSlot(fds *tableflip.Fds, name string) (*slot, error) {
	plug, err := newPlug()
	if err != nil {
		return nil, err
	}
	if err := fds.AddFile(name, plug); err != nil {
		_ = plug.Close()
		return nil, fmt.Errorf("add %s to tableflip: %w", name, err)
	}
	fd, content, err := twin(plug)
	if err != nil {
		return nil, fmt.Errorf("find tableflip's copy of %s: %w", name, err)
	}
	return &slot{fd: fd, plug: plug, content: content}, nil
}

// inheritSlot takes the content out of the slot that a predecessor filled, and makes it this process's own slot. The
// caller owns the content.
func inheritSlot(fds *tableflip.Fds, name string) (content *os.File, s *slot, err error) {
	content, err = fds.File(name)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrInherited, name, err)
	}
	if content == nil {
		return nil, nil, fmt.Errorf("%w: predecessor passed no %s: it does not run segue", ErrInherited, name)
	}
	fd, identity, err := twin(content)
	if err != nil {
		_ = content.Close()
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrInherited, name, err)
	}
	plug, err := newPlug()
	if err != nil {
		_ = content.Close()
		return nil, nil, err
	}
	s = &slot{fd: fd, plug: plug, content: identity}
	s.empty()
	return content, s, nil
}

// errSlotGone says that tableflip has closed its copy: it takes this process for replaced, or was stopped.
var errSlotGone = errors.New("tableflip has closed its descriptors")

// fill puts a duplicate of file into the slot. It touches nothing if the number is not the slot's any more: tableflip closes
// its files when an upgrade has succeeded, and the number may long be somebody else's.
func (s *slot) fill(file *os.File) error {
	if now, err := identify(s.fd); err != nil || now != s.content {
		return errSlotGone
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		if failed = duplicateTo(int(fd), s.fd); failed == nil {
			s.content, failed = identify(s.fd)
		}
	}); err != nil {
		return err
	}
	return os.NewSyscallError("dup3", failed)
}

// empty drops what the slot holds.
func (s *slot) empty() { _ = s.fill(s.plug) }

func identify(fd int) (identity, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return identity{}, os.NewSyscallError("fstat", err)
	}
	return identity{uint64(stat.Dev), uint64(stat.Ino)}, nil
}

// newPlug makes a descriptor that can stand anywhere, /dev or not.
func newPlug() (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return read, write.Close()
}

// twin finds the other descriptor of this process that refers to the same pipe or socket as file.
func twin(file *os.File) (int, identity, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return -1, identity{}, err
	}
	own := -1
	var want identity
	if err := raw.Control(func(fd uintptr) { own = int(fd); want, err = identify(own) }); err != nil {
		return -1, identity{}, err
	}
	if err != nil {
		return -1, identity{}, err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return -1, identity{}, os.NewSyscallError("getrlimit", err)
	}
	for fd := range int(min(uint64(limit.Cur), 1<<20)) {
		if fd == own {
			continue
		}
		if have, err := identify(fd); err == nil && have == want {
			return fd, have, nil
		}
	}
	return -1, identity{}, errors.New("no second descriptor")
}
