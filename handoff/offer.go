package handoff

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/segue-go/segue/internal/scm"
)

// Bounds of one OFFER. More goes into further ones.
const (
	// MaxEntries is the number of entries, with or without descriptor.
	MaxEntries = 1024
	// MaxDescriptors is the number of descriptors beside one offer: SCM_MAX_FD of unix(7).
	MaxDescriptors = scm.MaxDescriptors
	// MaxName is the number of bytes of a name, network or address.
	MaxName = 512
	// MaxData is the number of bytes of an entry's inline value, or of a part of one.
	MaxData = 512 << 10

	// An offer is begun anew before its entries weigh more than this in bytes; a body holds more. An entry of the
	// largest kind fits, with entryOverhead for what CBOR and the numbers in it need.
	maxOffer      = MaxData + 256<<10
	entryOverhead = 64
)

var (
	// ErrOffer says that an OFFER contradicts itself or exceeds a bound.
	ErrOffer = errors.New("invalid offer")
	// ErrAck says that an ACK does not answer the offer it was due for.
	ErrAck = errors.New("invalid ack")
)

// Offer announces entries, and that a message with Count descriptors follows, beside the 16 bytes of Token: one for each
// entry that has a Descriptor, in their order. It is not followed by one when Count is 0.
type Offer struct {
	ID      uint64  `cbor:"1,keyasint"`
	Token   Token   `cbor:"2,keyasint"`
	Count   int     `cbor:"3,keyasint"`
	Entries []Entry `cbor:"4,keyasint,omitempty"`
	// More says that this is not the last offer before the successor may go on.
	More bool `cbor:"5,keyasint,omitempty"`
	// Correlation is the sender's word for what it hands over, echoed by the Ack. It needs CapabilityBroker, as does Relay.
	Correlation uint64 `cbor:"6,keyasint,omitempty"`
	// Relay says that the client was told of Token, and waits to hear it from who serves it.
	Relay bool `cbor:"7,keyasint,omitempty"`
}

// Entry is one thing that is offered.
type Entry struct {
	ID      uint64 `cbor:"1,keyasint"`
	Kind    string `cbor:"2,keyasint"`
	Name    string `cbor:"3,keyasint,omitempty"`
	Network string `cbor:"4,keyasint,omitempty"`
	Address string `cbor:"5,keyasint,omitempty"`
	Data    []byte `cbor:"6,keyasint,omitempty"`
	// Described says that a descriptor comes with it.
	Described bool `cbor:"7,keyasint,omitempty"`
	// Size is the bytes of the whole value if Data is only a part of it, and Offset where in it the part begins. Parts need
	// CapabilityParts. They follow one another without a gap, and with no other value between them. 0 means that Data is
	// all.
	Size   uint64 `cbor:"8,keyasint,omitempty"`
	Offset uint64 `cbor:"9,keyasint,omitempty"`
	// Descriptor is that descriptor. On the sending side it stays the caller's; on the receiving side it belongs to the offer
	// (see Offer.Close) until the receiver sets the field to nil, or takes what is in it.
	Descriptor *Descriptor `cbor:"-"`
}

// Descriptor owns an open file that the Go runtime does not poll.
type Descriptor = scm.Descriptor

// Close closes the descriptors that are still in the offer's entries.
func (o *Offer) Close() error {
	var errs []error
	for i := range o.Entries {
		if d := o.Entries[i].Descriptor; d != nil {
			errs = append(errs, d.Close())
			o.Entries[i].Descriptor = nil
		}
	}
	return errors.Join(errs...)
}

// check holds an offer against its own announcements, before any descriptor is read.
func (o *Offer) check() error {
	if len(o.Entries) > MaxEntries {
		return fmt.Errorf("%w: %d entries, at most %d", ErrOffer, len(o.Entries), MaxEntries)
	}
	described := 0
	ids := make([]uint64, 0, len(o.Entries))
	for _, entry := range o.Entries {
		if entry.Described {
			described++
		}
		if longest := max(len(entry.Kind), len(entry.Name), len(entry.Network), len(entry.Address)); longest > MaxName {
			return fmt.Errorf("%w: entry %d has a name of %d bytes, at most %d", ErrOffer, entry.ID, longest, MaxName)
		}
		if len(entry.Data) > MaxData {
			return fmt.Errorf("%w: entry %d has %d bytes of data, at most %d", ErrOffer, entry.ID, len(entry.Data), MaxData)
		}
		if err := entry.checkPart(); err != nil {
			return err
		}
		ids = append(ids, entry.ID)
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != len(o.Entries) {
		return fmt.Errorf("%w: two entries with one id", ErrOffer)
	}
	if o.Count != described {
		return fmt.Errorf("%w: %d descriptors announced, %d entries have one", ErrOffer, o.Count, described)
	}
	if o.Count > MaxDescriptors {
		return fmt.Errorf("%w: %d descriptors announced, at most %d", ErrOffer, o.Count, MaxDescriptors)
	}
	if o.Count > 0 && o.Token.IsZero() {
		return fmt.Errorf("%w: %d descriptors announced: %w", ErrOffer, o.Count, ErrTokenMissing)
	}
	return nil
}

// checkPart holds a part of a value against the whole that it announces.
func (e *Entry) checkPart() error {
	length := uint64(len(e.Data))
	switch {
	case e.Size == 0 && e.Offset == 0:
		return nil // not a part
	case length == 0 || e.Described:
		return fmt.Errorf("%w: entry %d, %.64q, is a part with %d bytes of data, descriptor %v", ErrOffer, e.ID, e.Name, length, e.Described)
	case e.Offset >= e.Size || length > e.Size-e.Offset:
		return fmt.Errorf("%w: entry %d, %.64q, has bytes %d to %d of a value of %d", ErrOffer, e.ID, e.Name, e.Offset, e.Offset+length, e.Size)
	}
	return nil
}

// weight is about what an entry takes in a frame, in bytes, and rather more.
func (e *Entry) weight() int {
	return entryOverhead + len(e.Kind) + len(e.Name) + len(e.Network) + len(e.Address) + len(e.Data)
}

// descriptors lists the numbers behind the entries, which the caller keeps open.
func (o *Offer) descriptors() ([]int, error) {
	descriptors := make([]int, 0, o.Count)
	for i := range o.Entries {
		entry := &o.Entries[i]
		if !entry.Described {
			continue
		}
		if entry.Descriptor == nil || entry.Descriptor.FD() < 0 {
			return nil, fmt.Errorf("descriptor of entry %q: %w", entry.Name, os.ErrClosed)
		}
		descriptors = append(descriptors, entry.Descriptor.FD())
	}
	return descriptors, nil
}

// Offers packs entries into as few offers as the bounds allow, at least one, and numbers both from 1. The caller adds the
// tokens. The descriptors stay the caller's.
func Offers(entries []Entry) []*Offer {
	current := &Offer{ID: 1, More: true}
	offers := []*Offer{current}
	weight := 0
	for i, entry := range entries {
		entry.ID = uint64(i + 1)
		entry.Described = entry.Descriptor != nil
		if len(current.Entries) == MaxEntries || current.Count == MaxDescriptors || weight+entry.weight() > maxOffer {
			current = &Offer{ID: current.ID + 1, More: true}
			offers = append(offers, current)
			weight = 0
		}
		weight += entry.weight()
		if entry.Described {
			current.Count++
		}
		current.Entries = append(current.Entries, entry)
	}
	current.More = false
	return offers
}

// Ack answers each entry of one offer.
type Ack struct {
	Offer   uint64   `cbor:"1,keyasint"`
	Results []Result `cbor:"2,keyasint,omitempty"`
	// Credit is for how many connections the successor has room beside those of this offer and of those before it.
	// It counts with CapabilityEscrow and CapabilityBroker only.
	Credit uint32 `cbor:"3,keyasint,omitempty"`
	// Token and Correlation are those of the offer, with CapabilityBroker.
	Token       Token  `cbor:"4,keyasint,omitzero"`
	Correlation uint64 `cbor:"5,keyasint,omitempty"`
}

// Result is the answer to one entry.
type Result struct {
	ID       uint64 `cbor:"1,keyasint"`
	Accepted bool   `cbor:"2,keyasint"`
	Reason   Reason `cbor:"3,keyasint,omitempty"`
	Detail   string `cbor:"4,keyasint,omitempty"`
}

// Check fails with ErrAck unless a answers each entry of offer, in order.
func (a *Ack) Check(offer *Offer) error {
	if a.Offer != offer.ID || len(a.Results) != len(offer.Entries) {
		return fmt.Errorf("%w: %d results for offer %d, want %d for offer %d", ErrAck, len(a.Results), a.Offer, len(offer.Entries), offer.ID)
	}
	for i, result := range a.Results {
		if result.ID != offer.Entries[i].ID {
			return fmt.Errorf("%w: result %d is for entry %d, want %d", ErrAck, i, result.ID, offer.Entries[i].ID)
		}
	}
	return nil
}
