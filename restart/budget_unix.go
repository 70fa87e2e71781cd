//go:build linux || darwin || freebsd

package restart

import (
	"os"

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
	names, err := directory.Readdirnames(-1)
	return limit, len(names), err
}

func descriptorLimit() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	return int(min(uint64(limit.Cur), 1<<30)), nil
}
