package restart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segue-go/segue/handoff"
)

const (
	// moveWindow is how many offers of connections may be unanswered. moveAhead is how many connections may be out of their server and
	// not granted: more would only wait longer, and their clients with them.
	moveWindow = 4
	moveAhead  = 2 * handoff.MaxDescriptors
	// ackTimeout is how long the successor may take to answer an offer.
	ackTimeout = 5 * time.Second
	// moveTimeout is how long a message to the successor may take to be written.
	moveTimeout = 5 * time.Second
	// moveTick is how often connections that could not be had are asked again, and late answers looked for.
	moveTick = 100 * time.Millisecond
	// peer is what a mover's Policy calls its successor: there is one.
	peer = "successor"
)

// errMove says that no connection can be moved any more; those that are left are drained.
var errMove = errors.New("successor takes no connections")

// mover hands connections to the successor: from the GRANT of the listeners on, into escrow, if the successor can keep a ledger; else
// from the commit on. One goroutine owns it: that of the attempt until the commit, run after it.
//
// Ownership passes with GRANT: the successor does nothing with what it has acknowledged before, and this side does nothing
// with it after. What is not granted comes back to this side's server.
type mover struct {
	session  *handoff.Session
	log      *slog.Logger
	origins  []*origin
	spread   time.Duration // Options.Spread
	drain    time.Duration // Options.Drain
	pace     pace
	escrow   *escrow   // nil: nothing can be taken back
	counting *counting // nil if the successor has no counters

	departures *departures
	underWay   map[uint64]*batch // offers that were not answered
	offers     uint64
	tokens     handoff.TokenStore
	credit     int              // for how many more the successor has room; -1: it does not say
	scarce     bool             // that was too little for what was to move, and nothing was heard of it since
	fallback   handoff.Fallback // why connections stay just now
	wanted     bool             // connections are to move: begin and suspend
	takes      atomic.Bool      // connections can move just now
	policy     handoff.Policy   // whether a successor that refuses is offered more
	tally      tally
	cut        atomic.Int64 // connections that could neither move nor be served on

	done chan struct{} // closed: run has returned
}

// newMover returns nil for a successor that takes no connections.
func (g *Generation) newMover(session *handoff.Session, capabilities []string) *mover {
	if !slices.Contains(capabilities, handoff.CapabilityConnections) {
		return nil
	}
	m := &mover{
		session: session, log: g.log, origins: slices.Collect(maps.Values(g.movable)), spread: g.options.Spread, drain: g.options.Drain, credit: -1,
		departures: newDepartures(), underWay: make(map[uint64]*batch), done: make(chan struct{}),
	}
	if slices.Contains(capabilities, handoff.CapabilityEscrow) {
		escrow, err := newEscrow()
		if err != nil {
			g.log.Warn("connections move after the commit only", "error", err)
		}
		m.escrow = escrow
	}
	return m
}

// begin starts asking servers for their connections, or goes on with it.
func (m *mover) begin(ctx context.Context) error {
	m.wanted = true
	m.pace.by(time.Now().Add(m.spread))
	return m.goOn(ctx)
}

// suspend lets servers keep what they have, and gives back what was not offered yet.
func (m *mover) suspend() {
	m.wanted = false
	m.shut()
}

func (m *mover) shut() {
	m.takes.Store(false)
	back := m.departures.setOpen(false)
	for _, o := range m.origins {
		o.Retain()
	}
	for _, c := range back {
		m.giveBack(c)
	}
	m.departures.settle(len(back))
}

// goOn keeps as much under way as may be.
func (m *mover) goOn(ctx context.Context) error {
	if !m.wanted {
		return nil
	}
	short := m.credit == 0 || m.credit > 0 && m.credit < m.departures.first()
	m.scarce = m.scarce || short
	decision := m.policy.Decide(peer, handoff.Conditions{DescriptorPressure: short})
	if decision.Reconnect() { // rather served here than by nobody, and if this generation leaves, until the next answer
		if m.fallback != decision.Fallback {
			m.log.Warn("connections stay", "reason", string(decision.Fallback), "retry_after", decision.RetryAfter)
		}
		m.fallback = decision.Fallback
		m.shut()
		return nil
	}
	m.fallback = ""
	if !m.takes.Swap(true) {
		m.startPace()
	}
	m.departures.setOpen(true)
	m.ask()
	return m.send(ctx)
}

// ask has servers give up as many connections as there is room for under way.
func (m *mover) ask() {
	coming, underWay := m.departures.count()
	room := moveAhead - coming - underWay
	if m.credit > 0 {
		room = min(room, m.credit-coming)
	}
	most := m.pace.room(time.Now())
	for _, o := range m.origins {
		if room <= 0 || most <= 0 {
			return
		}
		met, asked := m.departures.ask(o, most, room, m.giveBack)
		m.pace.asked += met
		most, room = most-met, room-asked
	}
}

// startPace spreads what is still to be asked over what is left of the time for it.
func (m *mover) startPace() {
	conns := 0
	for _, o := range m.origins {
		conns += o.Conns()
	}
	m.pace.start(time.Now(), conns)
}

func (m *mover) giveBack(c moving) { _ = m.serveOn(c) }

// serveOn reports whether this generation's server has the connection again; it is closed otherwise.
func (m *mover) serveOn(c moving) bool {
	if err := c.takeBack(); err != nil {
		m.cut.Add(int64(c.together()))
		m.log.Warn("connection could neither be moved nor served on", "error", err)
		return false
	}
	return true
}

// send offers what is in the queue, as far as the window allows.
func (m *mover) send(ctx context.Context) error {
	for len(m.underWay) < moveWindow && m.credit != 0 {
		n := handoff.MaxDescriptors
		if m.credit > 0 {
			n = min(n, m.credit)
		}
		if len(m.underWay) > 0 && m.departures.fills(n) {
			return nil // a batch costs as much as many connections: as long as others are under way, it can wait for more
		}
		connections := m.departures.take(n)
		if len(connections) == 0 {
			return nil
		}
		if m.credit > 0 {
			m.credit -= len(connections)
		}
		if err := m.offer(ctx, connections); err != nil {
			return err
		}
	}
	return nil
}

// offer sends one batch.
func (m *mover) offer(ctx context.Context, connections []moving) error {
	m.offers++
	b := newBatch(m.offers, connections)
	m.underWay[m.offers] = b
	if err := b.describe(m.escrow); err != nil {
		return err
	}
	for i := range connections {
		m.tally.offer(&connections[i])
	}
	var err error
	if b.offer.Token, err = m.tokens.Issue(); err != nil {
		return err
	}
	err = m.write(ctx, b.offer)
	m.tokens.Revoke(b.offer.Token) // the successor consumes it, not this side
	return err
}

func (m *mover) write(ctx context.Context, message handoff.Message) error {
	ctx, cancel := context.WithTimeoutCause(ctx, moveTimeout, errMove)
	defer cancel()
	return m.session.Send(ctx, message)
}

// acked acts on the successor's answer to an offer.
func (m *mover) acked(ctx context.Context, ack *handoff.Ack) error {
	b, known := m.underWay[ack.Offer]
	if !known {
		return handoff.Unexpected("ACK of an offer under way", ack)
	}
	if err := b.check(ack); err != nil {
		return err
	}
	delete(m.underWay, ack.Offer)
	if err := m.grant(ctx, b, ack); err != nil {
		return err
	}
	return m.credited(ctx, ack.Credit)
}

// credited notes for how many connections the successor has room beside those under way.
func (m *mover) credited(ctx context.Context, room uint32) error {
	if m.credit >= 0 {
		_, underWay := m.departures.count()
		m.credit = max(int(min(room, 1<<30))-underWay, 0)
		m.scarce = false
	}
	return m.goOn(ctx)
}

// grant passes ownership of what was accepted.
func (m *mover) grant(ctx context.Context, b *batch, ack *handoff.Ack) error {
	granted := b.accepted(ack)
	if m.escrow != nil {
		m.escrow.hold(granted) // before it can be known over there
	}
	m.counting.tell(moveTimeout) // so that no counter decreases for the clients of these connections
	err := m.write(ctx, &handoff.Grant{Offers: []uint64{b.offer.ID}})
	m.tally.adopt(granted)
	if m.escrow == nil {
		for _, c := range granted {
			_ = c.Close() // even if GRANT was not sent whole: the successor may have it, and no owner is better than two
		}
	}
	for i, result := range ack.Results {
		if !result.Accepted {
			m.refuse(b.connections[i], result)
		}
	}
	if len(granted) > 0 {
		m.policy.Succeeded(peer) // it is not broken, only choosy
	}
	m.departures.settle(len(b.connections))
	return err
}

// refuse lets this generation's server go on with a connection that the successor does not want.
func (m *mover) refuse(c moving, result handoff.Result) {
	err := &handoff.RefusedError{Sentinel: handoff.ErrRefused, Reason: result.Reason, Detail: result.Detail}
	if m.tally.refuse(result.Reason); m.tally.refused[result.Reason] == 1 {
		m.log.Warn("successor refuses connections", "error", err) // the report has the others
	}
	m.policy.Failed(peer, err)
	if c.party != nil {
		m.refuseRaw(c, result)
		return
	}
	if result.Reason == handoff.ReasonDescriptors && m.credit >= 0 {
		m.credit = 0 // its next word on credit tells when there is room
	} else {
		c.Detached.Refused = true
	}
	m.giveBack(c)
}

// tick does what is due from time to time.
func (m *mover) tick(ctx context.Context, now time.Time) error {
	for _, b := range m.underWay {
		if now.After(b.late) {
			return fmt.Errorf("%w: no answer to offer %d after %v", handoff.ErrAckTimeout, b.offer.ID, ackTimeout)
		}
	}
	return m.goOn(ctx)
}

// run goes on after the commit, until ctx ends or the successor takes no more. Then it gives back what is not the successor's.
func (m *mover) run(ctx context.Context, incoming <-chan received) {
	defer close(m.done)
	err := m.commit(ctx)
	ticker := time.NewTicker(moveTick)
	defer ticker.Stop()
	for n := uint64(1); err == nil; n++ {
		select {
		case <-m.departures.wake:
			err = m.goOn(ctx)
		case in := <-incoming:
			err = m.answer(ctx, in)
		case now := <-ticker.C:
			if err = m.tick(ctx, now); err == nil && m.scarce {
				err = m.write(ctx, &handoff.Ping{Number: n}) // its answer tells whether there is room now
			}
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	m.finish(err)
}

// commit lets go of what was granted, and goes on without escrow.
func (m *mover) commit(ctx context.Context) error {
	if m.escrow != nil {
		m.escrow.close()
		m.escrow = nil
		if err := m.write(ctx, &handoff.Grant{}); err != nil {
			return err
		}
	}
	// In what follows the drain ends, and cuts what was not asked. The other half of it is for those that are in the middle of something.
	m.pace.by(time.Now().Add(m.drain / 2))
	m.startPace()
	return m.begin(ctx)
}

// answer acts on what the successor says after the commit.
func (m *mover) answer(ctx context.Context, in received) error {
	if in.err != nil {
		return fmt.Errorf("%w: %w", errMove, in.err)
	}
	switch message := in.message.(type) {
	case *handoff.Pong:
		return m.credited(ctx, message.Credit)
	case *handoff.Ack:
		return m.acked(ctx, message)
	default:
		return refusal("ACK", message)
	}
}

// finish gives back what was not granted, and has everything else stay.
func (m *mover) finish(cause error) {
	back := m.ungranted()
	if len(back) > 0 || !errors.Is(cause, context.Canceled) {
		m.log.Warn("connections are not moved any more", "given back", len(back), "error", cause)
	}
	// So that the successor, if it lives, knows that what it has acknowledged stays here: should this process die, it would
	// take it for its own.
	telling, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	_ = m.session.Send(telling, &handoff.Rollback{Reason: handoff.ReasonFor(cause)})
	m.departures.end()
	m.suspend()
	for _, c := range back {
		m.giveBack(c)
	}
	m.departures.settle(len(back))
}

// ungranted returns what was offered and is still this side's.
func (m *mover) ungranted() (back []moving) {
	for id, b := range m.underWay {
		back = append(back, b.connections...)
		delete(m.underWay, id)
	}
	return back
}

// rollBack takes everything back from a successor that is dead. If it could not be fenced, what it was granted is nobody's.
func (m *mover) rollBack(fenced bool) {
	back := m.ungranted()
	m.suspend()
	for _, c := range back {
		m.giveBack(c)
	}
	m.departures.settle(len(back))
	if m.escrow == nil {
		return
	}
	if !fenced {
		m.tally.lost += len(m.escrow.held)
		m.escrow.close()
		return
	}
	clean, lost := m.escrow.recover()
	for _, c := range clean {
		if m.serveOn(c) {
			m.tally.takenBack++
		} else {
			lost++
		}
	}
	m.tally.lost = lost
	if len(clean)+lost > 0 {
		m.log.Info("took connections back", "clean", m.tally.takenBack, "lost", lost)
	}
}
