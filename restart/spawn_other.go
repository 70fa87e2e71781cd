//go:build !(linux || darwin || freebsd)

package restart

import (
	"context"
	"errors"
	"fmt"
	"os"
)

func newSpawner(Options) (spawner, error) { return spawnerNowhere{}, nil }

// spawnerNowhere is for platforms that tableflip does not support: the service runs, and cannot be upgraded in place.
type spawnerNowhere struct{}

func (spawnerNowhere) inherited() *inheritance { return nil }
func (spawnerNowhere) check() error {
	return fmt.Errorf("%w: in-place upgrade: %w", ErrSpawn, errors.ErrUnsupported)
}
func (s spawnerNowhere) spawn(*os.File, *os.File) (*spawned, error) { return nil, s.check() }
func (spawnerNowhere) sealed()                                      {}
func (spawnerNowhere) ready() error                                 { return nil }
func (spawnerNowhere) waitPredecessor(context.Context) error        { return nil }
func (spawnerNowhere) stop()                                        {}
