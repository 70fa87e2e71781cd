//go:build linux || darwin || freebsd

package restart

import (
	"context"
	"errors"
	"testing"
)

// What an upgrade asks of the service may panic: the upgrade fails, and the generation serves on.
func TestInvariant2AServiceThatPanicsIsNotUpgraded(t *testing.T) {
	g := newTwin(t)
	g.options.Preflight = func(context.Context) error { panic("the test says so") }
	err := g.preflight(t.Context())
	if !errors.Is(err, ErrPreflight) || !errors.Is(err, ErrPanicked) {
		t.Errorf("want ErrPreflight and ErrPanicked, have %v", err)
	}
	err = g.bounded(t.Context(), func(context.Context) error {
		_, err := (&states{codecs: map[string]Codec{"broken": {Encode: func() ([]byte, error) { panic("the test says so") }}}}).entries(true)
		return err
	})
	if !errors.Is(err, ErrPanicked) {
		t.Errorf("want ErrPanicked, have %v", err)
	}
}
