//go:build linux || darwin || freebsd

package scm

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// parseControl returns all descriptors found in the control data of one recvmsg, also together with an error: they
// are open and have to be closed. The error wraps [ErrControlMessage].
//
// The parser of x/sys/unix does not serve: it returns no message at all once one is malformed, so the descriptors of
// the others would leak, and its bounds checks rely on the kernel.
func parseControl(b []byte) (fds []int, err error) {
	header := unix.CmsgLen(0)
	for len(b) > 0 {
		if len(b) < header {
			return fds, fmt.Errorf("%w: %d bytes after the last one", ErrControlMessage, len(b))
		}
		h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b)))
		if uint64(h.Len) < uint64(header) || uint64(h.Len) > uint64(len(b)) {
			return fds, fmt.Errorf("%w: length %d in %d bytes", ErrControlMessage, h.Len, len(b))
		}
		data := b[header:h.Len]
		b = b[min(unix.CmsgSpace(len(data)), len(b)):]

		rights := h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_RIGHTS
		pidfd := h.Level == unix.SOL_SOCKET && h.Type == scmPidfd
		if !rights {
			err = fmt.Errorf("%w: level %d, type %d", ErrControlMessage, h.Level, h.Type)
		}
		if !rights && !pidfd {
			continue
		}
		for ; len(data) >= 4; data = data[4:] {
			fds = append(fds, int(int32(binary.NativeEndian.Uint32(data))))
		}
		if len(data) > 0 {
			err = fmt.Errorf("%w: %d bytes after the last descriptor", ErrControlMessage, len(data))
		}
	}
	return fds, err
}
