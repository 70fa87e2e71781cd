//go:build !unix

package listener

import (
	"errors"
	"syscall"
)

// canInherit: this platform does not pass descriptors on.
const canInherit = false

// maxPath is the longest path of a Unix socket in bytes.
const maxPath = 107

func inspect(syscall.Conn) (bound, error) { return bound{}, errors.ErrUnsupported }
