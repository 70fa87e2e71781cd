package restart

import (
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/ledger"
	"github.com/segue-go/segue/listener"
)

const kindLedger = "ledger"

// escrow is what a predecessor keeps of the connections that it granted on probation: a descriptor of each, which it does not
// touch, and the ledger, in which the successor notes what it does with them. One goroutine uses it.
type escrow struct {
	ledger *ledger.Ledger
	issued int // slots
	held   []moving
}

// newEscrow makes room for as many connections as this process can have.
func newEscrow() (*escrow, error) {
	limit, err := descriptorLimit()
	if err != nil {
		return nil, err
	}
	book, err := ledger.New(min(limit, ledger.MaxSlots))
	if err != nil {
		return nil, err
	}
	return &escrow{ledger: book}, nil
}

// entry is what makes the successor able to use it.
func (e *escrow) entry() handoff.Entry {
	return handoff.Entry{Kind: kindLedger, Descriptor: e.ledger.Descriptor()}
}

// issue gives a connection its slot, from 1. It reports false if there is none left.
func (e *escrow) issue(c *moving) bool {
	if e.issued == e.ledger.Len() {
		return false
	}
	e.issued++
	c.slot = e.issued
	return true
}

// hold keeps connections that are being granted.
func (e *escrow) hold(granted []moving) { e.held = append(e.held, granted...) }

// close lets go: the connections are the successor's, or nobody's.
func (e *escrow) close() {
	for _, c := range e.held {
		_ = c.Close()
	}
	e.held = nil
	_ = e.ledger.Close()
}

// recover returns the connections that a successor, which is dead, has left between two requests, and closes the others. Lost are
// those that had not ended.
func (e *escrow) recover() (clean []moving, lost int) {
	for _, c := range e.held {
		state, ahead := e.ledger.Slot(c.slot - 1).Read()
		switch state {
		case ledger.Untouched:
			clean = append(clean, c)
		case ledger.Clean:
			// Its idle time began anew with the successor's answer, and is not known; the server's own is the best there is.
			c.Detached.Idle, c.Detached.Residual = true, ahead
			c.Detached.Left, c.Detached.At = c.from.idleTimeout(), time.Now()
			clean = append(clean, c)
		case ledger.Ended:
			_ = c.Close()
		default:
			_ = c.Close()
			lost++
		}
	}
	e.held = nil
	_ = e.ledger.Close()
	return clean, lost
}

// origin is where connections that move come from: a listener and its server.
type origin struct {
	*listener.Listener
	server *httpServer
}

func (o *origin) idleTimeout() time.Duration {
	if o.server.IdleTimeout != 0 {
		return max(o.server.IdleTimeout, 0)
	}
	return max(o.server.ReadTimeout, 0) // as net/http has it (http.Server.idleTimeout)
}

// moving is a connection on its way to the successor.
type moving struct {
	from *origin
	slot int // in the ledger, from 1; 0 if it is not to be taken back
	*listener.Detached
	party *party // if it was handed on by Detach; it has no origin then
}

// together is how many connections come back with it, itself included.
func (m moving) together() int {
	if m.party != nil {
		return len(m.party.members)
	}
	return 1
}

// takeBack lets this generation's server go on with it.
func (m moving) takeBack() error {
	if m.party != nil {
		return m.party.takeBack(m.Detached)
	}
	return m.from.Adopt(m.Detached)
}
