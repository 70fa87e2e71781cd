//go:build linux

package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"slices"
	"testing"

	"github.com/segue-go/segue/restart"
)

// carryLargeState has the service carry so many random bytes, which the first generation draws, and say what they are.
func carryLargeState(gen *restart.Generation, size int, log *slog.Logger) error {
	if size == 0 {
		return nil
	}
	var value []byte
	err := gen.State("large", restart.Codec{
		Encode: func() ([]byte, error) { return value, nil },
		Decode: func(inherited []byte) error { value = slices.Clone(inherited); return nil },
	})
	if err != nil {
		return err
	}
	if gen.Number() == 1 {
		value = make([]byte, size)
		_, _ = rand.Read(value) // never fails
	}
	sum := sha256.Sum256(value)
	log.Info("large state", "generation", gen.Number(), "bytes", len(value), "sum", hex.EncodeToString(sum[:]))
	return nil
}

// largeState is what generation number has said.
func (s *service) largeState(number int) (state struct {
	Bytes int
	Sum   string
}) {
	s.t.Helper()
	l := s.await("large state", func(l line) bool { return l.Message == "large state" && l.Generation == number })
	if err := json.Unmarshal([]byte(l.raw), &state); err != nil {
		s.t.Fatal(err)
	}
	return state
}

func TestLargestStateTravelsToEachSuccessor(t *testing.T) {
	const size = restart.MaxState / slowdown // the race detector looks at each byte of each copy
	s := startService(t, config{Probation: -1, LargeState: size})
	want := s.largeState(1)
	if want.Bytes != size {
		t.Fatalf("want %d bytes, have %d", size, want.Bytes)
	}
	for number := 2; number <= 4; number++ {
		before := s.pid()
		s.hangup(number)
		if have := s.largeState(number); want != have {
			t.Errorf("generation %d: want %+v, have %+v", number, want, have)
		}
		awaitExit(t, before)
	}
}

func TestInvariant2AStateThatIsTooLargeChangesNothing(t *testing.T) {
	s := startService(t, config{Probation: -1, LargeState: restart.MaxState + 1})
	first := s.pid()
	answer := s.upgrade()
	if !slices.Contains(answer.Is, "ErrStateTooLarge") {
		t.Errorf("want ErrStateTooLarge, have %v: %s", answer.Is, answer.Error)
	}
	if generation, pid := s.serving(); generation != 1 || pid != first || s.pid() != first {
		t.Errorf("want generation 1 of pid %d, have generation %d of pid %d, PID file %d", first, generation, pid, s.pid())
	}
}
