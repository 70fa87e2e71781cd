package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// DefaultWindow is how many connections of a Pool may be offered and not acknowledged. It is what a Unix socket's buffer has room for
// if the backend reads nothing (net.core.wmem_default of Linux; two messages for each).
const DefaultWindow = 64

const (
	// A backend that cannot be reached is dialed again after these times.
	shortestRedial = 10 * time.Millisecond
	longestRedial  = time.Second
	// mostMoves is how often one connection is offered anew because its backend leaves.
	mostMoves = 3
)

// errLeaving says that the backend takes no more connections on this socket, and that its successor may.
var errLeaving = errors.New("backend is leaving")

// errNoSession says that a refusal was not of a connection.
var errNoSession = errors.New("no session")

var errNoPlace = errors.New("no place in the window came free")

// Pool hands connections to one backend, many at once, over one socket, which it dials when the first connection comes, and again
// whenever it ends. A connection that the backend did not acknowledge is the caller's, and was not read from.
//
// Set the fields before the first call. Safe for concurrent use.
type Pool struct {
	// Path is the backend's handoff socket.
	Path string
	// AllowUIDs are effective uids that the backend may have besides this process's.
	AllowUIDs []int
	// Policy decides whether an attempt is made, with Path as the peer; nil means one of the Pool's own.
	Policy *Policy
	// Window is how many connections may be offered and not acknowledged, if the backend does not want fewer; 0 and less mean
	// DefaultWindow, more than DefaultTokenCapacity mean that.
	Window int
	// Deadline is how long an ack, the backend's greeting, and its answer when it has no room and is asked for some may take; 0 and less mean
	// DefaultAckDeadline. When it has passed, the socket is closed in such a way that no later ack counts, here or there.
	Deadline time.Duration
	// Waiting is how many connections may wait for a place in the window, or for the socket, and Wait how long; 0 and less mean
	// DefaultPendingCapacity and DefaultPendingTTL.
	Waiting int
	Wait    time.Duration

	start  sync.Once
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   chan struct{} // closed: run has returned
	tokens TokenStore

	mu      sync.Mutex // guards the window: the rest
	queue   PendingQueue[*handover]
	overdue *time.Timer // for those that wait too long
	watched bool        // that runs
	link    *link       // nil: there is no socket just now
	down    error       // why nobody waits for one; nil if they do
	closed  bool
	idle    chan struct{} // made by Close, closed when nothing is under way
}

// handover is one connection that is handed over.
type handover struct {
	client *Client
	done   func(error)
	moves  int // how often it was offered to a backend that left
}

func (p *Pool) begin() {
	p.start.Do(func() {
		p.ctx, p.cancel = context.WithCancel(context.Background())
		p.done = make(chan struct{})
		p.queue.Capacity, p.queue.TTL = p.Waiting, p.Wait
		p.overdue = time.AfterFunc(time.Hour, p.expire)
		p.overdue.Stop()
		if p.Window <= 0 {
			p.Window = DefaultWindow
		}
		p.Window = min(p.Window, DefaultTokenCapacity)
		if p.Deadline <= 0 {
			p.Deadline = DefaultAckDeadline
		}
		p.tokens.TTL = max(DefaultTokenTTL, 2*p.Deadline)
		if p.Policy == nil {
			p.Policy = new(Policy)
		}
		go p.run()
	})
}

// HandOver hands a connection to the backend. If it returns nil the backend has it, and the caller closes its own descriptor, reading and
// writing nothing. If it fails the connection is still the caller's, to be served by reconnect; but if Reached reports true, it is nobody's, and is to
// be closed. (That is so on platforms other than Linux, for what a backend that lives has not acknowledged in time.)
//
// It returns within Wait and Deadline, or within three times as much if backends leave meanwhile. The error is of ErrPolicy (Decision.Err), or a
// *RefusedError, or a *Failure: of ErrUnavailable, ErrWouldBlock if no place came free in time, ErrDescriptorPressure if too many wait for one,
// ErrAckTimeout; ErrAck, ErrTokenMismatch or another that Session.Receive has for it if the backend's answer makes no sense; net.ErrClosed after Close.
func (p *Pool) HandOver(client *Client) error {
	fate := make(chan error, 1)
	p.Offer(client, func(err error) { fate <- err })
	return <-fate
}

// Offer is HandOver for who does not wait: done is called once with what HandOver would return, possibly before Offer returns. Neither blocks, and done must
// not either. Until then nobody reads, writes or closes the connection.
func (p *Pool) Offer(client *Client, done func(error)) {
	p.begin()
	if len(client.Service) > MaxName {
		done(p.failure(ErrOffer, fmt.Errorf("service of %d bytes, at most %d", len(client.Service), MaxName)))
		return
	}
	if err := p.Policy.Decide(p.Path, client.Conditions).Err(); err != nil {
		done(err)
		return
	}
	p.enter(&handover{client: client, done: done})
}

// resolve acts on the fate of a connection.
func (p *Pool) resolve(h *handover, err error) {
	var refused *RefusedError
	isRefused := errors.As(err, &refused)
	switch {
	case err == nil:
		p.Policy.Succeeded(p.Path)
	case errors.Is(err, errLeaving) || isRefused && refused.Reason == ReasonStopped:
		if h.moves++; h.moves < mostMoves {
			p.enter(h)
			return
		}
		err = p.failure(ErrUnavailable, err)
	case isRefused && refused.Reason == ReasonIdentity: // its client has hung up
	case isRefused && !errors.Is(err, errNoSession):
		p.Policy.Failed(p.Path, err)
	}
	h.done(err)
}

// enter gives h a place in the window, or in the queue.
func (p *Pool) enter(h *handover) {
	link, err := p.placeFor(h)
	switch {
	case err != nil:
		p.resolve(h, err)
	case link != nil:
		link.offer(h)
	}
}

// placeFor returns where h is to be offered now, nil if it waits.
func (p *Pool) placeFor(h *handover) (*link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, p.failure(ErrUnavailable, net.ErrClosed)
	case p.down != nil:
		return nil, p.down
	}
	if p.link != nil && p.queue.Len() == 0 && p.link.room() > 0 {
		p.link.underWay++
		return p.link, nil
	}
	if err := p.queue.Push(h); err != nil {
		return nil, p.failure(ErrDescriptorPressure, err)
	}
	p.watchLocked()
	return nil, nil
}

// watchLocked has somebody look when the first of those that wait has waited too long.
func (p *Pool) watchLocked() {
	if due, any := p.queue.Next(); any && !p.watched {
		p.watched = true
		p.overdue.Reset(time.Until(due))
	}
}

// expire sends those away that have waited too long. They may have stood in the way of others for which there is a place.
func (p *Pool) expire() {
	p.mu.Lock()
	late := p.queue.Expire()
	next, link := p.advanceLocked(), p.link
	p.watched = false
	p.watchLocked()
	p.mu.Unlock()
	for _, h := range late {
		p.resolve(h, p.failure(ErrWouldBlock, errNoPlace))
	}
	for _, h := range next {
		link.offer(h)
	}
}

// advanceLocked returns those for which there is a place in the window, of those that wait the longest first.
func (p *Pool) advanceLocked() (next []*handover) {
	for p.link != nil && p.link.room() > 0 {
		h, ok := p.queue.Pop()
		if !ok {
			break
		}
		p.link.underWay++
		next = append(next, h)
	}
	return next
}

func (p *Pool) failure(sentinel, cause error) *Failure {
	return &Failure{Sentinel: sentinel, Descriptor: -1, Socket: p.Path, Cause: cause}
}

// run keeps a socket to the backend until Close.
func (p *Pool) run() {
	defer close(p.done)
	for pause := time.Duration(0); p.ctx.Err() == nil; {
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-p.ctx.Done():
				return
			}
		}
		link, err := p.dial()
		if err != nil {
			p.giveUp(err)
			pause = min(max(2*pause, shortestRedial), longestRedial)
			continue
		}
		if link.run() {
			pause = 0
		} else {
			pause = min(max(2*pause, shortestRedial), longestRedial)
		}
	}
}

// giveUp lets nobody wait for the socket any more, until there is one.
func (p *Pool) giveUp(cause error) {
	var failure *Failure
	if !errors.As(cause, &failure) {
		failure = p.failure(greetingSentinel(cause), fmt.Errorf("%w: %w", errNoSession, cause))
	}
	p.mu.Lock()
	p.down = failure
	waiting := p.queue.Clear()
	p.mu.Unlock()
	for _, h := range waiting {
		p.resolve(h, failure)
	}
}

// greetingSentinel is for what went wrong before a session began.
func greetingSentinel(cause error) error {
	for _, known := range []error{ErrRefused, ErrPermission, ErrAckTimeout, ErrVersion} {
		if errors.Is(cause, known) {
			return known
		}
	}
	return ErrUnavailable
}

// dial opens the socket and greets the backend.
func (p *Pool) dial() (*link, error) {
	ctx, cancel := context.WithTimeoutCause(p.ctx, p.Deadline, ErrAckTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", p.Path)
	if err != nil {
		return nil, dialFailure(p.Path, err)
	}
	unix := conn.(*net.UnixConn)
	if err := admissible(unix, p.AllowUIDs); err != nil {
		_ = conn.Close()
		return nil, err
	}
	session := NewSession(unix)
	session.broker()
	welcome, err := session.Connect(ctx, Token{})
	if err != nil {
		_ = session.Close()
		return nil, err
	}
	return newLink(p, session, welcome), nil
}

// Close waits until the backend has answered what is under way, for Deadline at most, and closes the socket. What waits for a place fails, and so does every
// later HandOver.
func (p *Pool) Close() error {
	p.begin()
	p.mu.Lock()
	p.closed = true
	waiting := p.queue.Clear()
	if p.idle == nil {
		p.idle = make(chan struct{})
		p.restLocked()
	}
	idle := p.idle
	p.mu.Unlock()
	for _, h := range waiting {
		p.resolve(h, p.failure(ErrUnavailable, net.ErrClosed))
	}
	select {
	case <-idle:
	case <-time.After(p.Deadline):
	}
	p.cancel()
	<-p.done
	p.overdue.Stop()
	return nil
}

// restLocked tells Close when nothing is under way.
func (p *Pool) restLocked() {
	if p.idle == nil || p.link != nil && p.link.underWay > 0 {
		return
	}
	select {
	case <-p.idle:
	default:
		close(p.idle)
	}
}
