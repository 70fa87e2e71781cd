//go:build linux

package restart

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
)

// An upgrade that fails because a state is not encoded in time leaves no descriptor open.
func TestInvariant8StateThatIsNotEncodedInTime(t *testing.T) {
	g := newTwin(t)
	g.options.UpgradeTimeout = 200 * time.Millisecond
	for _, name := range []string{"one", "two", "three"} {
		if _, err := g.Listen(t.Context(), name, "tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	encoded := make(chan struct{})
	if err := g.State("late", Codec{Encode: func() ([]byte, error) { <-encoded; return nil, nil }}); err != nil {
		t.Fatal(err)
	}
	defer close(encoded)
	first := runFirst(t, g)
	upgrade := func() {
		t.Helper()
		c := newConversation(t)
		peer := handoff.NewSession(c.successor)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, err := peer.Connect(t.Context(), c.token)
			for err == nil {
				_, err = peer.Receive(t.Context())
			}
		}()
		report := first.recorded(func(r *record) error {
			a := &attempt{Generation: first.Generation, record: r, session: c.predecessor, candidate: roommate{}, hello: 30 * time.Second}
			return a.run(context.Background(), c.tokens, c.token)
		})
		if !errors.Is(report.Err, ErrUpgradeTimeout) {
			t.Errorf("want ErrUpgradeTimeout, have %v", report.Err)
		}
		<-ended
		_ = peer.Close()
	}
	upgrade()
	_, before, err := measureDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		upgrade()
	}
	if _, after, err := measureDescriptors(); err != nil || after > before {
		t.Errorf("want %d descriptors, have %d, %v", before, after, err)
	}
}
