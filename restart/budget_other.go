//go:build !linux && !darwin && !freebsd

package restart

import "errors"

func measureDescriptors() (limit, open int, err error) { return 0, 0, errors.ErrUnsupported }

func descriptorLimit() (int, error) { return 0, errors.ErrUnsupported }
