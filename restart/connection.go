package restart

import (
	"fmt"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/ledger"
	"github.com/segue-go/segue/internal/wire"
	"github.com/segue-go/segue/listener"
)

const kindConnection = "connection"

// luggage is what travels with a connection's descriptor: the data of its entry, a CBOR map.
type luggage struct {
	Residual  []byte        `cbor:"1,keyasint,omitempty"`
	Idle      bool          `cbor:"2,keyasint,omitempty"`
	Left      time.Duration `cbor:"3,keyasint,omitempty"` // ns
	TCP       bool          `cbor:"4,keyasint,omitempty"`
	NoDelay   bool          `cbor:"5,keyasint,omitempty"`
	KeepAlive bool          `cbor:"6,keyasint,omitempty"`
	Start     time.Duration `cbor:"7,keyasint,omitempty"` // ns, of keepalive
	Interval  time.Duration `cbor:"8,keyasint,omitempty"` // ns
	Count     int           `cbor:"9,keyasint,omitempty"`
	Slot      int           `cbor:"10,keyasint,omitempty"` // in the ledger, from 1
}

const (
	// maxResidual is more than any server has read ahead at a boundary.
	maxResidual = 4 << 10
	// maxLeft bounds the time left that a predecessor may ask for. It asks for no more if its server would wait longer.
	maxLeft = 24 * time.Hour
)

// connectionEntry makes the entry for a connection of the listener of that name.
func connectionEntry(name string, slot int, d *listener.Detached) (handoff.Entry, error) {
	data, err := wire.Marshal(pack(slot, d))
	if err != nil {
		return handoff.Entry{}, fmt.Errorf("encode connection: %w", err)
	}
	return handoff.Entry{Kind: kindConnection, Name: name, Data: data, Descriptor: d.Descriptor}, nil
}

func pack(slot int, d *listener.Detached) luggage {
	keepAlive := d.Options.KeepAlive
	return luggage{
		Residual: d.Residual, Idle: d.Idle, Left: min(d.Remaining(), maxLeft),
		TCP: d.Options.TCP, NoDelay: d.Options.NoDelay, KeepAlive: keepAlive.Enable,
		Start: keepAlive.Idle, Interval: keepAlive.Interval, Count: keepAlive.Count,
		Slot: slot,
	}
}

// unpack is the inverse of pack, but for the slot.
func (l *luggage) unpack() *listener.Detached {
	d := &listener.Detached{Residual: l.Residual, Idle: l.Idle, Left: l.Left, At: time.Now()}
	d.Options.TCP, d.Options.NoDelay = l.TCP, l.NoDelay
	d.Options.KeepAlive.Enable, d.Options.KeepAlive.Count = l.KeepAlive, l.Count
	d.Options.KeepAlive.Idle, d.Options.KeepAlive.Interval = l.Start, l.Interval
	return d
}

// connectionFrom takes the connection out of an entry. A nil book is for a session that has none.
func connectionFrom(entry *handoff.Entry, book *ledger.Ledger) (*listener.Detached, error) {
	var l luggage
	if err := wire.Unmarshal(entry.Data, &l); err != nil {
		return nil, fmt.Errorf("connection: %w", err)
	}
	if len(l.Residual) > maxResidual || l.Left < 0 || l.Left > maxLeft {
		return nil, fmt.Errorf("%w: connection with %d bytes of residual, %v left", handoff.ErrMalformed, len(l.Residual), l.Left)
	}
	d := l.unpack()
	if l.Slot != 0 {
		if book != nil {
			d.Slot = book.Slot(l.Slot - 1)
		}
		if d.Slot == nil {
			return nil, fmt.Errorf("%w: connection with slot %d of no ledger, or outside of it", handoff.ErrMalformed, l.Slot)
		}
	}
	d.Descriptor, entry.Descriptor = entry.Descriptor, nil
	return d, nil
}
