package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/segue-go/segue/internal/scm"
)

// kindConnection is the kind of an entry that is a connection.
const kindConnection = "connection"

// askAgain is how often a backend that has no room is asked whether it has.
const askAgain = 100 * time.Millisecond

// link is one session of a Pool with its backend. Its goroutine, run, reads what the backend says; those that hand connections over write
// themselves, so that nothing stands between a connection and the socket.
//
// The backend owns a connection from the moment on that its ack is in this side's receive queue. So an end of the session needs care: the queue
// is closed for further acks first (fence), then read to its end, and what is not acknowledged then is known to be this side's.
type link struct {
	pool    *Pool
	session *Session
	acks    AckRegistry[*handover]
	spoilt  []*handover // whose ack made no sense
	offers  atomic.Uint64
	pings   atomic.Uint64
	over    atomic.Bool // no ack counts any more
	watch   *time.Timer // for overdue acks
	ask     *time.Timer // whether there is room now
	silence *time.Timer // for an overdue answer to that

	// Guarded by pool.mu.
	credit   int // for how many connections the backend has room, those under way included
	underWay int // with a place in the window
	watched  bool
	cause    error // why it ends
	fenced   bool
	useful   bool // the backend has acknowledged something
}

func newLink(p *Pool, session *Session, welcome *Welcome) *link {
	l := &link{pool: p, session: session, credit: bounded32(welcome.Limits.Credit)}
	l.acks.Deadline, l.acks.Tokens = p.Deadline, &p.tokens
	l.watch = time.AfterFunc(p.Deadline, l.expire)
	l.watch.Stop()
	l.ask = time.AfterFunc(askAgain, l.ping)
	l.ask.Stop()
	l.silence = time.AfterFunc(p.Deadline, l.hung)
	l.silence.Stop()
	p.mu.Lock()
	p.link, p.down = l, nil
	p.mu.Unlock()
	l.settle(0)
	return l
}

func bounded32(credit uint32) int { return int(min(credit, 1<<30)) }

// room is how many more connections may be offered. The caller holds pool.mu.
func (l *link) room() int { return min(l.credit, l.pool.Window) - l.underWay }

// offer offers a connection that has a place in the window. It does not wait.
func (l *link) offer(h *handover) {
	token, err := l.pool.tokens.Issue()
	if err != nil {
		l.settle(1)
		l.pool.resolve(h, err)
		return
	}
	// Before the end of the link can tell the caller that the client is its own.
	if err := h.client.announce(token); err != nil {
		l.pool.tokens.Revoke(token)
		l.settle(1)
		l.pool.resolve(h, l.pool.failure(ErrSendFailed, err))
		return
	}
	id := l.offers.Add(1)
	// The ack can be faster than this goroutine.
	if err := l.acks.Register(id, token, h); err != nil {
		l.pool.tokens.Revoke(token)
		l.settle(1)
		l.pool.resolve(h, err)
		return
	}
	if l.over.Load() {
		l.abandon(id, l.pool.failure(ErrUnavailable, io.EOF))
		return
	}
	l.watchOver()
	message := &Offer{
		ID: id, Token: token, Count: 1, Correlation: h.client.Correlation, Relay: h.client.Relay,
		Entries: []Entry{{ID: 1, Kind: kindConnection, Name: h.client.Service, Described: true}},
	}
	err = l.send(h.client, message, l.session.sendNow)
	if errors.Is(err, errBusy) { // the backend reads slowly; what bounds the wait is the fence
		go func() {
			l.sent(id, l.send(h.client, message, func(m Message) error { return l.session.Send(context.Background(), m) }))
		}()
		return
	}
	l.sent(id, err)
}

// send sends an offer with the client's descriptor.
func (l *link) send(client *Client, message *Offer, send func(Message) error) error {
	raw, err := client.raw()
	if err != nil {
		return &Failure{Sentinel: ErrSendFailed, Descriptor: -1, Socket: l.pool.Path, Cause: err}
	}
	var failed error
	// Inside Control the number cannot become that of another file, whoever closes this one.
	if err := raw.Control(func(fd uintptr) {
		message.Entries[0].Descriptor = scm.NewDescriptor(int(fd))
		failed = send(message)
	}); err != nil {
		return &Failure{Sentinel: ErrSendFailed, Descriptor: -1, Socket: l.pool.Path, Cause: err}
	}
	return failed
}

// sent acts on what became of an offer on the way.
func (l *link) sent(id uint64, err error) {
	var failure *Failure
	switch {
	case err == nil:
	case errors.As(err, &failure): // nothing was sent
		l.abandon(id, failure)
	case errors.Is(err, errInFlight):
		l.abandon(id, l.pool.failure(ErrDescriptorPressure, err))
	default: // how much was is not known
		l.fence(fmt.Errorf("%w: %w", sentinelFor(err), err))
	}
}

// abandon is for what was registered and not offered. The end of the link may have been faster.
func (l *link) abandon(id uint64, err error) {
	if h, ok := l.acks.Abandon(id); ok {
		l.settle(1)
		l.pool.resolve(h, err)
	}
}

// settle gives places in the window back, and to those that wait.
func (l *link) settle(n int) {
	l.pool.mu.Lock()
	next := l.settleLocked(n)
	l.pool.mu.Unlock()
	l.offerAll(next)
}

func (l *link) settleLocked(n int) (next []*handover) {
	l.underWay -= n
	if l.pool.link != l {
		return nil
	}
	next = l.pool.advanceLocked()
	l.askLocked()
	l.pool.restLocked()
	return next
}

func (l *link) offerAll(next []*handover) {
	for _, h := range next {
		l.offer(h)
	}
}

// run reads what the backend says, until the end. It reports whether there is reason to dial again at once.
func (l *link) run() (again bool) {
	defer l.session.Close()
	// Not a context for Receive: what the backend has acknowledged by now is to be read.
	stop := context.AfterFunc(l.pool.ctx, func() { l.fence(net.ErrClosed) })
	defer stop()
	var err error
	for err == nil {
		var message Message
		if message, err = l.session.Receive(context.Background()); err == nil {
			err = l.hear(message)
		}
	}
	l.fence(err)
	l.finish()
	return l.useful
}

func (l *link) hear(message Message) error {
	switch message := message.(type) {
	case *Ack:
		if err := l.acked(message); err != nil {
			l.fence(err) // and read on: what it has acknowledged before it knew is its own
		}
		return nil
	case *Pong:
		l.silence.Stop()
		l.pool.mu.Lock()
		l.credit = bounded32(message.Credit)
		l.pool.mu.Unlock()
		l.settle(0)
		return nil
	case *Bye:
		l.fence(errLeaving) // it has nothing more to say, and may not close for long
		return nil
	default:
		return Unexpected("ACK, PONG or BYE", message)
	}
}

// acked acts on the backend's answer to an offer. An error is for an answer that ends the session.
func (l *link) acked(ack *Ack) error {
	h, err := l.acks.Acknowledge(ack.Offer, ack.Token)
	if h == nil {
		return err
	}
	if !errors.Is(err, ErrAckTimeout) && err != nil || len(ack.Results) != 1 || ack.Correlation != h.client.Correlation {
		if err == nil {
			err = fmt.Errorf("%w: %d results, correlation %d for offer %d, want 1 and %d", ErrAck, len(ack.Results), ack.Correlation, ack.Offer, h.client.Correlation)
		}
		l.spoilt = append(l.spoilt, h)
		return err
	}
	var fate error
	if result := ack.Results[0]; !result.Accepted {
		fate = &RefusedError{Sentinel: ErrRefused, Reason: result.Reason, Detail: result.Detail}
		if result.Reason == ReasonStopped {
			l.fence(errLeaving) // it is about to say BYE
		}
	}
	// A late one counts, too, if it was in the queue before the fence: this process may be the one that was late.
	l.pool.mu.Lock()
	l.credit, l.useful = bounded32(ack.Credit), true
	next := l.settleLocked(1)
	l.pool.mu.Unlock()
	l.offerAll(next)
	l.pool.resolve(h, fate)
	return nil
}

// watchOver has somebody look when the deadline of what is offered now has passed.
func (l *link) watchOver() {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if !l.watched {
		l.watched = true
		l.watch.Reset(l.pool.Deadline)
	}
}

// expire ends the session if an ack is overdue.
func (l *link) expire() {
	l.pool.mu.Lock()
	due, any := l.acks.Next()
	left := time.Until(due)
	switch {
	case !any:
		l.watched = false
	case left > 0:
		l.watch.Reset(left)
	}
	l.pool.mu.Unlock()
	if any && left <= 0 {
		l.hung()
	}
}

// hung ends the session with a backend that has not answered for as long as it may take.
func (l *link) hung() { l.fence(fmt.Errorf("%w: %v", ErrAckTimeout, l.pool.Deadline)) }

// askLocked has the backend asked for room, if it has none and no ack is to come that could tell.
func (l *link) askLocked() {
	if l.underWay == 0 && l.credit <= 0 {
		l.ask.Reset(askAgain)
	}
}

// ping asks. No ack is under way whose deadline would tell that the backend has hung, so the question has one itself.
func (l *link) ping() {
	l.silence.Reset(l.pool.Deadline)
	if err := l.session.Send(context.Background(), &Ping{Number: l.pings.Add(1)}); err != nil {
		l.fence(fmt.Errorf("%w: %w", sentinelFor(err), err))
	}
}

// leave takes the link out of the pool, so that nothing more is offered here. The first cause is the one that counts, but that an offer did not
// find the backend any more may be known before it is read that this was leaving.
func (l *link) leave(cause error) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if l.cause != nil && !(errors.Is(cause, errLeaving) && errors.Is(l.cause, ErrUnavailable)) {
		return
	}
	l.cause = cause
	if l.pool.link == l {
		l.pool.link = nil
	}
}

// fence sees to it that no ack is sent any more that this side does not read: it fails at the backend, which then knows that the connection is
// not its own.
func (l *link) fence(cause error) {
	l.leave(cause)
	l.pool.mu.Lock()
	again := l.fenced
	l.fenced = true
	l.pool.mu.Unlock()
	if !again {
		_ = l.session.conn.CloseRead()
		_ = l.session.conn.SetWriteDeadline(time.Unix(1, 0)) // for those whose offers the backend does not read
	}
}

// finish tells those that wait for an ack that none comes.
func (l *link) finish() {
	l.over.Store(true)
	l.watch.Stop()
	l.ask.Stop()
	l.silence.Stop()
	l.pool.mu.Lock()
	cause := l.cause
	l.pool.mu.Unlock()
	fate := cause
	abandoned := append(l.acks.AbandonAll(), l.spoilt...)
	if !errors.Is(cause, errLeaving) {
		sentinel, ended := lossOf(cause)
		// A backend that has ended its side has nothing more to say.
		fate = &Failure{Sentinel: sentinel, Descriptor: -1, Socket: l.pool.Path, Reached: !ended && !fenceKeeps, Cause: cause}
		if !errors.Is(cause, net.ErrClosed) && (len(abandoned) > 0 || !ended) {
			l.pool.Policy.Failed(l.pool.Path, fate) // once, however many were under way
		}
	}
	l.settle(len(abandoned))
	for _, h := range abandoned {
		l.pool.resolve(h, fate)
	}
	l.pool.mu.Lock()
	l.pool.restLocked()
	l.pool.mu.Unlock()
}

// lossOf sorts the reasons for which a session can end, and says whether it was the backend that ended it.
func lossOf(cause error) (sentinel error, ended bool) {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(cause, end) {
			return ErrUnavailable, true
		}
	}
	if errors.Is(cause, net.ErrClosed) {
		return ErrUnavailable, false
	}
	for _, known := range failures {
		if errors.Is(cause, known.sentinel) {
			return known.sentinel, false
		}
	}
	return ErrSendFailed, false
}
