//go:build !linux

package restart

import (
	"errors"
	"fmt"
	"net"
)

func holdPeer(*net.UnixConn) (*process, int, error) {
	return nil, 0, fmt.Errorf("identify peer: %w", errors.ErrUnsupported)
}

const canTakeOver = false
