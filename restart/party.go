package restart

import (
	"fmt"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/wire"
	"github.com/segue-go/segue/listener"
)

const (
	// kindRaw is the kind of the entry of a connection that was handed on by Detach; its name is that of Adopt. The entry of each further
	// one that travels with it follows, and is of kindBeside.
	kindRaw    = "raw"
	kindBeside = "beside"
)

// party is what one Detach hands on: it arrives or comes back as a whole.
type party struct {
	kind    string
	state   []byte
	members []*listener.Detached
	home    *rawConns // where it comes from, or has arrived
}

// moving lists the members for the mover.
func (p *party) moving() []moving {
	list := make([]moving, 0, len(p.members))
	for _, d := range p.members {
		list = append(list, moving{Detached: d, party: p})
	}
	return list
}

// takeBack is moving.takeBack. The members are always given back together, and the first brings the others along.
func (p *party) takeBack(d *listener.Detached) error {
	if d != p.members[0] {
		return nil
	}
	for _, d := range p.members {
		d.Refused = true // it is not handed on again
	}
	return p.home.receive(p)
}

// rawLuggage is the data of a raw connection's entry, a CBOR map like luggage.
type rawLuggage struct {
	luggage
	State    []byte `cbor:"11,keyasint,omitempty"`
	Listener string `cbor:"12,keyasint,omitempty"`
}

// rawOverhead is more than what an entry needs beside its state and its residual.
const rawOverhead = 1 << 10

// size is how many bytes the entry has at most.
func (m moving) size() int {
	size := rawOverhead + len(m.Residual)
	if m.party != nil && m.Detached == m.party.members[0] {
		size += len(m.party.state)
	}
	return size
}

// entry makes what is offered of a connection.
func (m moving) entry() (handoff.Entry, error) {
	if m.party == nil {
		return connectionEntry(m.from.Name(), m.slot, m.Detached)
	}
	entry := handoff.Entry{Kind: kindBeside, Name: m.party.kind, Descriptor: m.Descriptor}
	packed := rawLuggage{luggage: pack(0, m.Detached), Listener: m.Detached.Listener}
	if m.Detached == m.party.members[0] {
		entry.Kind, packed.State = kindRaw, m.party.state
	}
	var err error
	if entry.Data, err = wire.Marshal(packed); err != nil {
		return handoff.Entry{}, fmt.Errorf("encode connection: %w", err)
	}
	return entry, nil
}

// partySize is how many entries from the first on belong together.
func partySize(entries []handoff.Entry) int {
	n := 1
	if entries[0].Kind == kindRaw {
		for n < len(entries) && entries[n].Kind == kindBeside {
			n++
		}
	}
	return n
}

// refuseRaw is refuse for what was handed on by Detach. A successor that does not know the kind is not asked again.
func (m *mover) refuseRaw(c moving, result handoff.Result) {
	switch {
	case result.Reason == handoff.ReasonKind:
		m.departures.unwant(c.party.kind)
	case result.Reason == handoff.ReasonDescriptors && m.credit >= 0:
		m.credit = 0
	}
	m.giveBack(c)
}

// arrival makes a party of entries. It owns their descriptors if it succeeds.
func (r *rawConns) arrival(entries []handoff.Entry) (*party, error) {
	head := &entries[0]
	adopter, known := r.adopters[head.Name]
	if !known || adopter.single && len(entries) != 1 {
		return nil, fmt.Errorf("%w: %w: %d connections as %.64q", errKind, errNoAdopter, len(entries), head.Name)
	}
	p := &party{kind: head.Name, home: r}
	for i := range entries {
		entry := &entries[i]
		var packed rawLuggage
		if err := wire.Unmarshal(entry.Data, &packed); err != nil {
			return nil, fmt.Errorf("connection: %w", err)
		}
		if entry.Descriptor == nil || len(packed.Residual)+len(packed.State) > MaxConnState || packed.Slot != 0 || packed.Idle || i > 0 && len(packed.State) > 0 {
			return nil, fmt.Errorf("%w: connection %d of %d as %.64q", handoff.ErrMalformed, i+1, len(entries), head.Name)
		}
		d := packed.unpack()
		d.Listener = packed.Listener
		d.At = time.Now()
		p.members = append(p.members, d)
		if i == 0 {
			p.state = packed.State
		}
	}
	for i := range entries {
		p.members[i].Descriptor, entries[i].Descriptor = entries[i].Descriptor, nil
	}
	return p, nil
}

// adoptees lists the members for the adopter.
func (p *party) adoptees() []adoptee {
	list := make([]adoptee, 0, len(p.members))
	for _, d := range p.members {
		list = append(list, adoptee{Detached: d, party: p})
	}
	return list
}

// adopt makes a connection this generation's own, and has it served. It returns how many are served more: a party arrives with its first.
func (a adoptee) adopt() (n int, err error) {
	switch {
	case a.party == nil:
		n, err = 1, a.to.Adopt(a.Detached)
	case a.Detached == a.party.members[0]:
		n, err = len(a.party.members), a.party.home.receive(a.party)
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}
