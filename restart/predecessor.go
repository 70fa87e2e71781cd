package restart

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/ledger"
	"github.com/segue-go/segue/internal/scm"
	"github.com/segue-go/segue/listener"
)

// predecessor is the successor's view of the generation that it takes over from.
type predecessor struct {
	session *handoff.Session
	pid     int           // as it says: for people
	gone    chan struct{} // closed: it has drained, or died
	ledger  *ledger.Ledger
}

func (p *predecessor) hasGone() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// inheritFrom is inherit for a process that was spawned.
func (g *Generation) inheritFrom(ctx context.Context, left *inheritance) error {
	conn, err := net.FileConn(left.socket)
	_ = left.socket.Close()
	if err != nil {
		return fmt.Errorf("%w: upgrade socket: %w", ErrInherited, err)
	}
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return fmt.Errorf("%w: upgrade socket is a %T, want a unix socket", ErrInherited, conn)
	}
	err = g.inherit(ctx, socket, left.token)
	if isGone(err) {
		g.predecessorDied(err)
		return nil
	}
	return err
}

// predecessorDied notes that this generation goes on with what it was offered so far: sockets that it was not, it can open
// itself, because nobody has them any more. Run finds the session at its end, too.
func (g *Generation) predecessorDied(cause error) {
	g.log.Warn("predecessor died before it had handed over", "error", cause)
}

// inherit takes what the predecessor at the other end of socket offers.
func (g *Generation) inherit(ctx context.Context, socket *net.UnixConn, token handoff.Token) error {
	// Nothing is accepted here before the predecessor has paused: a successor that turns out bad at start must not have
	// taken a connection.
	g.sockets.Pause()
	g.predecessor = &predecessor{session: handoff.NewSession(socket), gone: make(chan struct{})}
	g.number = 2 // at least
	g.states.disinherit()
	g.counters.disinherit()
	ctx, cancel := context.WithTimeoutCause(ctx, g.options.UpgradeTimeout, ErrUpgradeTimeout)
	defer cancel()
	if err := g.receiveInheritance(ctx, token); err != nil {
		return fmt.Errorf("inherit: %w", err)
	}
	return nil
}

// disinherit makes this generation the first one again.
func (g *Generation) disinherit() {
	if g.predecessor != nil {
		_ = g.predecessor.session.Close()
	}
	g.predecessor, g.number = nil, 1
	g.sockets.Resume()
}

func (g *Generation) receiveInheritance(ctx context.Context, token handoff.Token) error {
	session := g.predecessor.session
	welcome, err := session.Connect(ctx, token)
	if err != nil {
		return err
	}
	g.number = int(min(welcome.Generation, 1<<31-1))
	g.predecessor.pid = welcome.PID
	for more := true; more; {
		message, err := session.Receive(ctx)
		if err != nil {
			return err
		}
		offer, ok := message.(*handoff.Offer)
		if !ok {
			return refusal("OFFER", message)
		}
		ack, err := g.accept(offer)
		if err != nil {
			g.refuse(err)
			return err
		}
		if err := session.Send(ctx, ack); err != nil {
			return err
		}
		more = offer.More
	}
	return nil
}

// refuse tells the predecessor that its offers contradict each other, so that its error can say so.
func (g *Generation) refuse(cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	_ = g.predecessor.session.Send(ctx, &handoff.Rollback{Reason: handoff.ReasonFor(cause), Detail: cause.Error()}) // it sees our end, too
}

// accept takes the entries of an offer over, and closes what it refuses. It fails, with handoff.ErrOffer, if the offers so
// far do not fit together.
func (g *Generation) accept(offer *handoff.Offer) (*handoff.Ack, error) {
	defer offer.Close()
	ack := &handoff.Ack{Offer: offer.ID}
	for i := range offer.Entries {
		entry := &offer.Entries[i]
		result := handoff.Result{ID: entry.ID, Accepted: true}
		err := g.acceptEntry(entry)
		if errors.Is(err, handoff.ErrOffer) {
			return nil, err
		}
		if err != nil {
			result.Accepted, result.Reason, result.Detail = false, acceptReason(err), err.Error()
			g.log.Warn("refused what the predecessor offers", "kind", entry.Kind, "name", entry.Name, "error", err)
		}
		ack.Results = append(ack.Results, result)
	}
	if !offer.More {
		return ack, g.states.complete()
	}
	return ack, nil
}

var errKind = errors.New("unknown kind of entry")

func acceptReason(err error) handoff.Reason {
	switch {
	case errors.Is(err, errKind):
		return handoff.ReasonKind
	case errors.Is(err, listener.ErrIdentity):
		return handoff.ReasonIdentity
	default:
		return handoff.ReasonFailed
	}
}

func (g *Generation) acceptEntry(entry *handoff.Entry) error {
	switch kind := listener.Kind(entry.Kind); {
	case entry.Kind == kindLedger && entry.Descriptor != nil && g.predecessor.ledger == nil:
		book, err := ledger.Open(entry.Descriptor)
		g.predecessor.ledger = book
		return err
	case entry.Kind == kindState && entry.Descriptor == nil:
		return g.states.inherit(entry)
	case entry.Kind == kindCounter && entry.Descriptor == nil:
		return g.counters.inherit(entry)
	case entry.Descriptor != nil && (kind == listener.KindListener || kind == listener.KindPacket || kind == listener.KindFile):
		socket := listener.Socket{Name: entry.Name, Kind: kind, Network: entry.Network, Address: entry.Address, File: entry.Descriptor.File(entry.Name)}
		return g.sockets.Inherit(socket) // which owns the file, whatever it answers
	default:
		return fmt.Errorf("%w: %.32q", errKind, entry.Kind)
	}
}

// entries lists what a successor with these capabilities inherits, but for states. The caller closes the descriptors.
func (a *attempt) entries(capabilities []string) ([]handoff.Entry, error) {
	able := make(map[string]bool)
	for _, name := range capabilities {
		able[name] = true
	}
	var entries []handoff.Entry
	if a.movesNow() {
		entries = append(entries, a.mover.escrow.entry())
	}
	needs := map[listener.Kind]string{
		listener.KindListener: handoff.CapabilityListeners,
		listener.KindPacket:   handoff.CapabilityPackets,
		listener.KindFile:     handoff.CapabilityFiles,
	}
	sockets, err := a.sockets.Sockets()
	if err != nil {
		return nil, err
	}
	for _, socket := range sockets {
		if !able[needs[socket.Kind]] {
			a.log.Warn("successor cannot inherit", "kind", string(socket.Kind), "name", socket.Name)
		} else if descriptor, failed := scm.Duplicate(socket.File); failed != nil {
			err = errors.Join(err, failed)
		} else {
			entries = append(entries, handoff.Entry{
				Kind: string(socket.Kind), Name: socket.Name, Network: socket.Network, Address: socket.Address, Descriptor: descriptor,
			})
		}
		_ = socket.File.Close()
	}
	if err != nil {
		closeEntries(entries)
		return nil, fmt.Errorf("offer sockets: %w", err)
	}
	if able[handoff.CapabilityCounters] {
		entries = append(entries, a.counters.entries()...)
	}
	return entries, nil
}

func closeEntries(entries []handoff.Entry) {
	for _, entry := range entries {
		if entry.Descriptor != nil {
			_ = entry.Descriptor.Close()
		}
	}
}
