package restart

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/segue-go/segue/handoff"
)

var (
	// ErrStateTooLarge says that an encoded state exceeds handoff.MaxData bytes.
	ErrStateTooLarge = errors.New("state too large")
	// ErrStateName says that a state's name is empty, too long, or taken.
	ErrStateName = errors.New("invalid name of a state")
)

// Codec turns a value of the service into bytes and back.
type Codec struct {
	// Encode is called in the serving generation at the start of each upgrade. The result may have handoff.MaxData
	// bytes; an error fails the upgrade.
	Encode func() ([]byte, error)
	// Decode is called in the successor with what Encode returned, while State runs. It must not keep the slice.
	Decode func([]byte) error
}

// State names a value that travels to the next generation. If the predecessor had one of that name, it is decoded
// before State returns; an error of Decode is returned. It fails with ErrStateName.
func (g *Generation) State(name string, codec Codec) error {
	return g.states.add(name, codec)
}

// states is the values of this generation by name, and what the predecessor left.
type states struct {
	codecs    map[string]Codec
	inherited map[string][]byte
}

const kindState = "state"

func (s *states) add(name string, codec Codec) error {
	if _, taken := s.codecs[name]; taken || name == "" || len(name) > handoff.MaxName {
		return fmt.Errorf("%w: %.64q", ErrStateName, name)
	}
	if s.codecs == nil {
		s.codecs = make(map[string]Codec)
	}
	s.codecs[name] = codec
	value, ok := s.inherited[name]
	if !ok {
		return nil
	}
	delete(s.inherited, name)
	if err := codec.Decode(value); err != nil {
		return fmt.Errorf("decode state %q: %w", name, err)
	}
	return nil
}

func (s *states) inherit(entry handoff.Entry) {
	if s.inherited == nil {
		s.inherited = make(map[string][]byte)
	}
	s.inherited[entry.Name] = entry.Data
}

func (s *states) forgetUnclaimed(log *slog.Logger) {
	for name := range s.inherited {
		log.Warn("nobody asked for inherited state", "name", name)
	}
	s.inherited = nil
}

// entries encodes all values, in a stable order.
func (s *states) entries() ([]handoff.Entry, error) {
	var entries []handoff.Entry
	for name, codec := range s.codecs {
		value, err := codec.Encode()
		if err != nil {
			return nil, fmt.Errorf("encode state %q: %w", name, err)
		}
		if len(value) > handoff.MaxData {
			return nil, fmt.Errorf("encode state %q: %w: %d bytes, at most %d", name, ErrStateTooLarge, len(value), handoff.MaxData)
		}
		entries = append(entries, handoff.Entry{Kind: kindState, Name: name, Data: value})
	}
	slices.SortFunc(entries, func(a, b handoff.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}
