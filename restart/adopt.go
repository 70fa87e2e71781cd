package restart

import (
	"context"
	"errors"
	"fmt"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/ledger"
	"github.com/segue-go/segue/listener"
)

// maxPendingOffers bounds what a predecessor may offer without granting it.
const maxPendingOffers = 2 * moveWindow

// adopter is the successor's side of a mover: it holds the connections that it has acknowledged and that were not granted yet. One
// goroutine uses it.
type adopter struct {
	origins map[string]*origin // those whose connections can be adopted
	raw     *rawConns
	ledger  *ledger.Ledger // nil if the predecessor has none, or has let go of everything
	budget  budget
	adopted func(connections int) // Observer's
	pending map[uint64][]adoptee
}

type adoptee struct {
	to *origin
	*listener.Detached
	party *party // if it was handed on by Detach; to is nil then
}

var errNoAdopter = errors.New("no such service here")

// consider takes an offer of connections, and makes the answer. Nobody reads or writes them before grant.
func (a *adopter) consider(offer *handoff.Offer) (*handoff.Ack, error) {
	defer offer.Close()
	if len(a.pending) >= maxPendingOffers {
		return nil, fmt.Errorf("%w: %d offers are not granted yet", handoff.ErrUnexpectedMessage, len(a.pending))
	}
	if _, again := a.pending[offer.ID]; again {
		return nil, fmt.Errorf("%w: offer %d again", handoff.ErrUnexpectedMessage, offer.ID)
	}
	ack := &handoff.Ack{Offer: offer.ID, Results: make([]handoff.Result, 0, len(offer.Entries))}
	accepted := make([]adoptee, 0, len(offer.Entries))
	for i := 0; i < len(offer.Entries); {
		together := offer.Entries[i : i+partySize(offer.Entries[i:])]
		connections, err := a.accept(together)
		accepted = append(accepted, connections...)
		for _, entry := range together {
			result := handoff.Result{ID: entry.ID, Accepted: err == nil}
			if err != nil {
				result.Reason, result.Detail = acceptReason(err), err.Error()
			}
			ack.Results = append(ack.Results, result)
		}
		i += len(together)
	}
	if a.pending == nil {
		a.pending = make(map[uint64][]adoptee)
	}
	a.pending[offer.ID] = accepted
	a.budget.take(len(accepted))
	ack.Credit = a.budget.credit()
	return ack, nil
}

// accept takes what travels together.
func (a *adopter) accept(entries []handoff.Entry) ([]adoptee, error) {
	entry := &entries[0]
	if entry.Kind == kindRaw {
		p, err := a.raw.arrival(entries)
		if err != nil {
			return nil, err
		}
		return p.adoptees(), nil
	}
	if entry.Kind != kindConnection || entry.Descriptor == nil {
		return nil, fmt.Errorf("%w: %.32q", errKind, entry.Kind)
	}
	to, known := a.origins[entry.Name]
	if !known {
		return nil, fmt.Errorf("%w: %w: %.64q", errKind, errNoAdopter, entry.Name)
	}
	connection, err := connectionFrom(entry, a.ledger)
	if err != nil {
		return nil, err
	}
	return []adoptee{{to: to, Detached: connection}}, nil
}

// grant makes connections of offers this generation's own, and has them served.
func (a *adopter) grant(offers []uint64) error {
	var errs []error
	for _, id := range offers {
		connections, known := a.pending[id]
		if !known {
			errs = append(errs, fmt.Errorf("%w: GRANT of offer %d", handoff.ErrUnexpectedMessage, id))
		}
		delete(a.pending, id)
		adopted := 0
		for _, c := range connections {
			n, err := c.adopt()
			if err != nil {
				errs = append(errs, err)
			}
			adopted += n
		}
		if adopted > 0 && a.adopted != nil {
			a.adopted(adopted)
		}
	}
	return errors.Join(errs...)
}

// settle notes that the predecessor, or whoever it was, can take nothing back any more.
func (a *adopter) settle() {
	if a.ledger == nil {
		return
	}
	// It stays mapped: what reads just now still writes into it. A process has one predecessor, so it is one at most.
	a.ledger = nil
	for _, connections := range a.pending {
		for _, c := range connections {
			c.Slot = nil
		}
	}
	for _, o := range a.origins {
		o.Settle()
	}
}

// grantAll is grant for what a dead predecessor has left: it is this generation's, or nobody's.
func (a *adopter) grantAll() error {
	var errs []error
	for id := range a.pending {
		errs = append(errs, a.grant([]uint64{id}))
	}
	return errors.Join(errs...)
}

// drop lets go of what was not granted: it is the predecessor's.
func (a *adopter) drop() {
	for id, connections := range a.pending {
		for _, c := range connections {
			_ = c.Close() // this process's copy
		}
		delete(a.pending, id)
	}
}

// handleConnections acts on what a predecessor says of its connections, on probation and after it.
func (p *probation) handleConnections(ctx context.Context, message handoff.Message) error {
	switch message := message.(type) {
	case *handoff.Offer:
		ack, err := p.adopter.consider(message)
		if err != nil {
			return err
		}
		return p.send(ctx, ack)
	case *handoff.Grant:
		err := p.adopter.grant(message.Offers)
		if errors.Is(err, handoff.ErrUnexpectedMessage) {
			return err
		}
		if err != nil {
			p.log.Warn("cannot adopt connections", "error", err)
		}
		return nil
	case *handoff.Counted:
		return p.counters.hear(message, p.log)
	default:
		return handoff.Unexpected("PING, OFFER, GRANT or COUNTED", message)
	}
}

// handleServing acts on what a predecessor says that drains.
func (p *probation) handleServing(ctx context.Context, message handoff.Message) error {
	switch message := message.(type) {
	case *handoff.Grant:
		if len(message.Offers) > 0 {
			return p.handleConnections(ctx, message)
		}
		p.adopter.settle()
		return nil
	case *handoff.Rollback:
		p.adopter.drop()
		return nil
	case *handoff.Bye:
		p.adopter.drop()
		p.predecessorWent()
		if message.Upgrade {
			p.wantUpgrade()
		}
		if message.Stop {
			p.wantStop()
		}
		return nil
	default:
		return p.handleConnections(ctx, message)
	}
}
