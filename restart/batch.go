package restart

import (
	"fmt"
	"time"

	"github.com/segue-go/segue/handoff"
)

// batch is an offer of connections that was not answered yet.
type batch struct {
	offer       *handoff.Offer
	connections []moving
	late        time.Time // when it should have been answered
}

func newBatch(id uint64, connections []moving) *batch {
	return &batch{
		offer:       &handoff.Offer{ID: id, Count: len(connections), Entries: make([]handoff.Entry, 0, len(connections))},
		connections: connections,
		late:        time.Now().Add(ackTimeout),
	}
}

// describe makes an entry of each connection, with a slot of the ledger if there is an escrow.
func (b *batch) describe(escrow *escrow) error {
	for i := range b.connections {
		c := &b.connections[i]
		if escrow != nil && !escrow.issue(c) {
			return fmt.Errorf("%w: all slots of the ledger are taken", errMove)
		}
		entry, err := c.entry()
		if err != nil {
			return err
		}
		entry.ID, entry.Described = uint64(i+1), true
		b.offer.Entries = append(b.offer.Entries, entry)
	}
	return nil
}

// check fails with handoff.ErrAck if that is no answer to this offer, or if the successor took a part of what travels together.
func (b *batch) check(ack *handoff.Ack) error {
	if err := ack.Check(b.offer); err != nil {
		return err
	}
	for i := 1; i < len(b.connections); i++ {
		p := b.connections[i].party
		if p != nil && p == b.connections[i-1].party && ack.Results[i].Accepted != ack.Results[i-1].Accepted {
			return fmt.Errorf("%w: a part of %d connections that travel together", handoff.ErrAck, len(p.members))
		}
	}
	return nil
}

// accepted lists the connections that the successor takes.
func (b *batch) accepted(ack *handoff.Ack) []moving {
	list := make([]moving, 0, len(b.connections))
	for i, result := range ack.Results {
		if result.Accepted {
			list = append(list, b.connections[i])
		}
	}
	return list
}
