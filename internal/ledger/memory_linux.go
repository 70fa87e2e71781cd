package ledger

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/segue-go/segue/internal/scm"
)

// seals keep a file from becoming smaller, which would make an access to the memory beyond its end a SIGBUS (memfd_create(2), fcntl(2)).
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

func create(size int) (*scm.Descriptor, error) {
	fd, err := unix.MemfdCreate("segue-ledger", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	descriptor := scm.NewDescriptor(fd)
	err = os.NewSyscallError("ftruncate", unix.Ftruncate(fd, int64(size)))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
		err = os.NewSyscallError("fcntl", err)
	}
	if err != nil {
		_ = descriptor.Close()
		return nil, err
	}
	return descriptor, nil
}

// check returns the size in bytes of what can only be a ledger's memory.
func check(descriptor *scm.Descriptor) (size int, err error) {
	have, err := unix.FcntlInt(uintptr(descriptor.FD()), unix.F_GET_SEALS, 0) // EINVAL if it is no memfd
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrInvalid, os.NewSyscallError("fcntl", err))
	}
	if have&unix.F_SEAL_SHRINK == 0 {
		return 0, fmt.Errorf("%w: seals %#x, want %#x", ErrInvalid, have, seals)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(descriptor.FD(), &stat); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return int(stat.Size), nil
}

func mapShared(descriptor *scm.Descriptor, size int) ([]byte, error) {
	memory, err := unix.Mmap(descriptor.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return memory, os.NewSyscallError("mmap", err)
}

func unmap(memory []byte) error { return os.NewSyscallError("munmap", unix.Munmap(memory)) }
