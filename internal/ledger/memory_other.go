//go:build !linux

package ledger

import (
	"errors"

	"github.com/segue-go/segue/internal/scm"
)

func create(int) (*scm.Descriptor, error) { return nil, errors.ErrUnsupported }

func check(*scm.Descriptor) (int, error) { return 0, errors.ErrUnsupported }

func mapShared(*scm.Descriptor, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmap([]byte) error { return errors.ErrUnsupported }
