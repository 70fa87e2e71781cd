package restart

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/segue-go/segue/handoff"
)

// Bounds of what travels by State.
const (
	// MaxState is how many bytes one encoded state may have: 64 MiB.
	MaxState = 64 << 20
	// MaxStates is how many bytes all of a generation's encoded states may have together: 256 MiB.
	MaxStates = 256 << 20

	// maxStateNames is how many states a generation may have.
	maxStateNames = 4096
)

var (
	// ErrStateTooLarge says that an encoded state exceeds MaxState, or all of them MaxStates; or that one exceeds
	// handoff.MaxData and the successor's version of this package takes no more.
	ErrStateTooLarge = errors.New("state too large")
	// ErrStateName says that a state's name is empty, too long, taken, or one too many.
	ErrStateName = errors.New("invalid name of a state")
	// ErrStateParts says that a predecessor sent a state that contradicts itself or is not whole.
	ErrStateParts = errors.New("state does not fit together")
)

// Codec turns a value of the service into bytes and back.
type Codec struct {
	// Encode is called in the serving generation at the start of each upgrade, within Options.UpgradeTimeout. The result
	// may have MaxState bytes, and those of all states together MaxStates; an error fails the upgrade. The result must
	// not be changed before the upgrade is over.
	Encode func() ([]byte, error)
	// Decode is called in the successor with what Encode returned, while State runs. It must not keep the slice.
	Decode func([]byte) error
}

// State names a value that travels to the next generation. If the predecessor had one of that name, it is decoded
// before State returns; an error of Decode is returned. It fails with ErrStateName. What nobody has asked for when Run is
// called is forgotten.
//
// The value is copied: for as long as an upgrade takes, both generations hold its bytes. It travels before the successor
// is ready, 64 MiB in some 100 ms, while the predecessor serves on; what changes after Encode is not in it.
func (g *Generation) State(name string, codec Codec) error {
	return g.states.add(name, codec)
}

// states is the values of this generation by name, and what the predecessor left.
type states struct {
	codecs    map[string]Codec
	inherited map[string][]byte
	size      uint64   // bytes of inherited and of what is announced for partial
	partial   *partial // a value of which more is to come
}

// partial is the beginning of a value.
type partial struct {
	name  string
	size  uint64
	value []byte // has room for all of it
}

const kindState = "state"

func (s *states) add(name string, codec Codec) error {
	if _, taken := s.codecs[name]; taken || name == "" || len(name) > handoff.MaxName || len(s.codecs) == maxStateNames {
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

// inherit takes a value, or the next part of one. Its errors are handoff.ErrOffer, too: a predecessor whose values do not
// fit together cannot be trusted with the rest. What is not whole is seen by nobody.
func (s *states) inherit(entry *handoff.Entry) error {
	if err := s.inheritPart(entry); err != nil {
		s.partial = nil
		return fmt.Errorf("%w: state %.64q: %w", handoff.ErrOffer, entry.Name, err)
	}
	return nil
}

func (s *states) inheritPart(entry *handoff.Entry) error {
	whole := entry.Size == 0
	if s.partial == nil {
		if entry.Offset != 0 {
			return fmt.Errorf("%w: part at byte %d, want the first", ErrStateParts, entry.Offset)
		}
		size := entry.Size
		if whole {
			size = uint64(len(entry.Data))
		}
		if err := s.announce(entry.Name, size); err != nil {
			return err
		}
		if whole {
			s.keep(entry.Name, entry.Data)
			return nil
		}
		// The system gives the memory as it is written to, not before.
		s.partial = &partial{name: entry.Name, size: size, value: make([]byte, 0, size)}
	}
	p := s.partial
	have := uint64(len(p.value))
	if length := uint64(len(entry.Data)); whole || entry.Name != p.name || entry.Size != p.size || entry.Offset != have || length == 0 || length > p.size-have {
		return fmt.Errorf("%w: %d bytes at %d of %d, want the part of %.64q at %d of %d",
			ErrStateParts, len(entry.Data), entry.Offset, entry.Size, p.name, have, p.size)
	}
	p.value = append(p.value, entry.Data...)
	if uint64(len(p.value)) == p.size {
		s.keep(p.name, p.value)
		s.partial = nil
	}
	return nil
}

// announce fails unless there may be a value of that name and size.
func (s *states) announce(name string, size uint64) error {
	_, again := s.inherited[name]
	switch {
	case again:
		return fmt.Errorf("%w: it came already", ErrStateParts)
	case name == "" || len(s.inherited) == maxStateNames:
		return fmt.Errorf("%w: after %d others", ErrStateName, len(s.inherited))
	case size > MaxState:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrStateTooLarge, size, MaxState)
	case size > MaxStates-s.size:
		return fmt.Errorf("%w: %d bytes after %d of others, at most %d altogether", ErrStateTooLarge, size, s.size, MaxStates)
	}
	s.size += size
	return nil
}

func (s *states) keep(name string, value []byte) {
	if s.inherited == nil {
		s.inherited = make(map[string][]byte)
	}
	s.inherited[name] = value
}

// complete fails if a value is not whole.
func (s *states) complete() error {
	p := s.partial
	if p == nil {
		return nil
	}
	s.partial = nil
	return fmt.Errorf("%w: state %.64q: %w: it ends after %d bytes, want %d", handoff.ErrOffer, p.name, ErrStateParts, len(p.value), p.size)
}

// disinherit forgets what a predecessor left, before another one is asked.
func (s *states) disinherit() { s.inherited, s.size, s.partial = nil, 0, nil }

func (s *states) forgetUnclaimed(log *slog.Logger) {
	if s.partial != nil { // its predecessor died
		log.Warn("inherited state is not whole", "name", s.partial.name, "bytes", len(s.partial.value), "of", s.partial.size)
	}
	for name := range s.inherited {
		log.Warn("nobody asked for inherited state", "name", name)
	}
	s.disinherit()
}

// entries encodes all values, in a stable order. Those above handoff.MaxData are in parts, if the successor can take them.
func (s *states) entries(parts bool) ([]handoff.Entry, error) {
	var entries []handoff.Entry
	limit := MaxState
	if !parts {
		limit = handoff.MaxData
	}
	total := 0
	for name, codec := range s.codecs {
		value, err := codec.Encode()
		if err != nil {
			return nil, fmt.Errorf("encode state %q: %w", name, err)
		}
		if len(value) > limit {
			return nil, fmt.Errorf("encode state %q: %w: %d bytes, at most %d", name, ErrStateTooLarge, len(value), limit)
		}
		if total += len(value); total > MaxStates {
			return nil, fmt.Errorf("encode state %q: %w: %d bytes with the others, at most %d", name, ErrStateTooLarge, total, MaxStates)
		}
		entries = append(entries, handoff.Entry{Kind: kindState, Name: name, Data: value})
	}
	slices.SortFunc(entries, func(a, b handoff.Entry) int { return strings.Compare(a.Name, b.Name) })
	return divide(entries), nil
}

// divide makes parts of what is too large for one entry. They share the memory of the whole.
func divide(entries []handoff.Entry) []handoff.Entry {
	var divided []handoff.Entry
	for _, entry := range entries {
		if len(entry.Data) <= handoff.MaxData {
			divided = append(divided, entry)
			continue
		}
		part, offset := entry, uint64(0)
		part.Size = uint64(len(entry.Data))
		for data := range slices.Chunk(entry.Data, handoff.MaxData) {
			part.Data, part.Offset = data, offset
			divided = append(divided, part)
			offset += uint64(len(data))
		}
	}
	return divided
}
