//go:build linux

package restart

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// enter goes through the door as a visitor does, and returns the error of knock.
func (d *door) enter(t *testing.T) error {
	t.Helper()
	conn, token, err := knock(d.path)
	if err != nil {
		return err
	}
	defer conn.Close()
	visitor := <-d.visitors
	defer visitor.dismiss("test", "")
	return d.tokens.Redeem(d.token, token.Expose())
}

// Whatever a takeover that failed has left, the next one finds the generation that serves.
func TestDoorIsFoundAfterAFailedTakeover(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	newDoor := func(path string) *door {
		d := &door{path: path, log: slog.New(slog.DiscardHandler)}
		if err := d.open(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.close(true) })
		go d.receive(ctx, d.listener)
		return d
	}
	for _, test := range []struct {
		name  string
		fails func(t *testing.T, d *door)
	}{
		{"the token was used", func(t *testing.T, d *door) {
			if err := d.enter(t); err != nil {
				t.Fatal(err)
			}
		}},
		{"the token was not used", func(*testing.T, *door) {}},
		{"the visitor opened its own door, and died", func(t *testing.T, d *door) { newDoor(d.path).close(false) }},
		{"no token could be written for a while", func(t *testing.T, d *door) {
			if err := d.enter(t); err != nil {
				t.Fatal(err)
			}
			obstacle := d.path + tokenSuffix
			if err := os.Remove(obstacle); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(obstacle, 0o700); err != nil {
				t.Fatal(err)
			}
			if d.restore(ctx) == nil {
				t.Fatal("want an error")
			}
			if err := os.Remove(obstacle); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDoor(filepath.Join(t.TempDir(), "s"))
			test.fails(t, d)
			if err := d.restore(ctx); err != nil {
				t.Fatal(err)
			}
			if err := d.enter(t); err != nil {
				t.Errorf("want to be let in, have %v", err)
			}
		})
	}
}
