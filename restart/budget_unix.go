//go:build linux || darwin || freebsd

package restart

import (
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// measureDescriptors returns RLIMIT_NOFILE and how many descriptors are open, as far as /dev/fd tells. (On Linux it is a link to
// /proc/self/fd; a FreeBSD without fdescfs(5) shows the first three. Then EMFILE tells.)
func measureDescriptors() (limit, open int, err error) {
	if limit, err = descriptorLimit(); err != nil {
		return 0, 0, err
	}
	directory, err := os.Open("/dev/fd")
	if err != nil {
		return 0, 0, err
	}
	defer directory.Close()
	if sizeIsCount() {
		info, err := directory.Stat()
		if err != nil {
			return 0, 0, err
		}
		return limit, int(info.Size()), nil
	}
	names, err := directory.Readdirnames(-1)
	return limit, len(names), err
}

// sizeIsCount reports whether the directory's size is how many descriptors are open, as on Linux since 6.2 (proc(5)): to list ten thousand takes
// tens of ms. What else calls itself Linux may have another idea of the size, so it is compared once.
var sizeIsCount = sync.OnceValue(func() bool {
	if runtime.GOOS != "linux" {
		return false
	}
	directory, err := os.Open("/dev/fd")
	if err != nil {
		return false
	}
	defer directory.Close()
	names, err := directory.Readdirnames(-1)
	if err != nil {
		return false
	}
	info, err := directory.Stat()
	if err != nil {
		return false
	}
	const meanwhile = 16 // may have been opened or closed
	size := int(info.Size())
	return size > 0 && max(size-len(names), len(names)-size) <= meanwhile
})

func descriptorLimit() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	return int(min(uint64(limit.Cur), 1<<30)), nil
}
