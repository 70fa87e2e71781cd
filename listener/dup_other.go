//go:build !unix

package listener

import (
	"errors"
	"os"
	"syscall"
)

func dup(syscall.Conn, string) (*os.File, error) { return nil, errors.ErrUnsupported }

func dupNonblock(syscall.Conn, string) (*os.File, error) { return nil, errors.ErrUnsupported }

func closeOnExec(syscall.Conn) error { return errors.ErrUnsupported }
