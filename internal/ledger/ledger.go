// Package ledger is what lets a predecessor take connections back from a successor that has died: a table in memory that both
// have mapped, with one word for each connection that was granted on probation. The successor writes into a connection's word
// before it touches the connection, when it is between two requests again, and when it has closed it; the predecessor reads the words
// when the successor is dead, and not before.
//
// The memory is a memfd, sealed so that neither side can make it smaller under the other. It outlives its writer: what was written
// before a SIGKILL is there. Linux only; elsewhere New and Open answer [errors.ErrUnsupported].
package ledger

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/segue-go/segue/internal/scm"
)

// MaxSlots is the largest size of a Ledger.
const MaxSlots = 1 << 20

// ErrInvalid says that a descriptor is not that of a ledger.
var ErrInvalid = errors.New("not a ledger")

// Ledger is one process's view of the table.
type Ledger struct {
	memory     []byte
	slots      []Slot
	descriptor *scm.Descriptor // nil once closed, and in the process that was given it
}

// Slot is a connection's word. All methods may be called by several goroutines at once, but they are meant for the one that serves
// the connection.
type Slot struct{ word atomic.Uint32 }

// State is what a Slot says of its connection.
type State uint8

const (
	// Untouched connections are as they were granted.
	Untouched State = iota
	// Used connections are in the middle of something.
	Used
	// Clean connections were used, and are between two requests.
	Clean
	// Ended connections were closed. To a peer that does not know of this state they are Used.
	Ended
)

// A word is the state in bits 0 to 3, the number of bytes that were read ahead in bits 4 to 7, and these bytes from bit 8 on.
const (
	stateMask    = 0xf
	countShift   = 4
	readShift    = 8
	maxReadAhead = 3
)

// size of a Slot in memory.
const slotSize = int(unsafe.Sizeof(Slot{}))

// New makes a ledger with n untouched slots, n from 1 to MaxSlots. The caller closes it.
func New(n int) (*Ledger, error) {
	if n < 1 || n > MaxSlots {
		return nil, fmt.Errorf("ledger of %d slots, want 1 to %d", n, MaxSlots)
	}
	descriptor, err := create(n * slotSize)
	if err != nil {
		return nil, fmt.Errorf("make ledger: %w", err)
	}
	l, err := view(descriptor, n*slotSize)
	if err != nil {
		_ = descriptor.Close()
		return nil, fmt.Errorf("map ledger: %w", err)
	}
	l.descriptor = descriptor
	return l, nil
}

// Open maps the ledger behind a descriptor that came from another process; the descriptor stays the caller's. It fails with
// ErrInvalid if that is something else, or could be made smaller.
func Open(descriptor *scm.Descriptor) (*Ledger, error) {
	size, err := check(descriptor)
	if err != nil {
		return nil, err
	}
	if size < slotSize || size > MaxSlots*slotSize || size%slotSize != 0 {
		return nil, fmt.Errorf("%w: %d bytes, want a multiple of %d up to %d", ErrInvalid, size, slotSize, MaxSlots*slotSize)
	}
	l, err := view(descriptor, size)
	if err != nil {
		return nil, fmt.Errorf("map ledger: %w", err)
	}
	return l, nil
}

func view(descriptor *scm.Descriptor, size int) (*Ledger, error) {
	memory, err := mapShared(descriptor, size)
	if err != nil {
		return nil, err
	}
	slots := unsafe.Slice((*Slot)(unsafe.Pointer(unsafe.SliceData(memory))), size/slotSize)
	return &Ledger{memory: memory, slots: slots}, nil
}

// Descriptor is what another process can Open. It stays the Ledger's.
func (l *Ledger) Descriptor() *scm.Descriptor { return l.descriptor }

// Len is the number of slots.
func (l *Ledger) Len() int { return len(l.slots) }

// Slot returns slot i, nil if there is none. It must not be used after Close.
func (l *Ledger) Slot(i int) *Slot {
	if i < 0 || i >= len(l.slots) {
		return nil
	}
	return &l.slots[i]
}

// Close ends this process's view. Nobody may use its slots any more.
func (l *Ledger) Close() error {
	if l.memory == nil {
		return nil
	}
	err := unmap(l.memory)
	l.memory, l.slots = nil, nil
	if l.descriptor != nil {
		err = errors.Join(err, l.descriptor.Close())
	}
	return err
}

// Use notes that the connection is in the middle of something, before it is.
func (s *Slot) Use() { s.word.Store(uint32(Used)) }

// Clean notes that the connection is between two requests, and which bytes of the next, three at most, were taken from the kernel
// already. It reports whether that could be noted.
func (s *Slot) Clean(readAhead []byte) bool {
	if len(readAhead) > maxReadAhead {
		return false
	}
	word := uint32(Clean) | uint32(len(readAhead))<<countShift
	for i, b := range readAhead {
		word |= uint32(b) << (readShift + 8*i)
	}
	s.word.Store(word)
	return true
}

// End notes that the connection is closed: the peer knows, and nothing is left to take back. It is Used until then.
func (s *Slot) End() { s.word.Store(uint32(Ended)) }

// InUse reports whether the connection is in the middle of something.
func (s *Slot) InUse() bool { return s.word.Load()&stateMask == uint32(Used) }

// Read returns what was noted. A word that makes no sense is that of a connection in use.
func (s *Slot) Read() (state State, readAhead []byte) {
	word := s.word.Load()
	count := word >> countShift & 0xf
	switch state = State(word & stateMask); {
	case word == uint32(Untouched), word == uint32(Ended):
		return state, nil
	case state != Clean || count > maxReadAhead:
		return Used, nil
	}
	for i := range count {
		readAhead = append(readAhead, byte(word>>(readShift+8*i)))
	}
	return Clean, readAhead
}
