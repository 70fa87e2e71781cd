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
	// Deadline is how long an ack, and the backend's greeting, may take; 0 and less mean DefaultAckDeadline. When it has passed, the
	// socket is closed in such a way that no later ack counts, here or there.
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

	mu     sync.Mutex // guards the window: the rest
	queue  PendingQueue[*handover]
	link   *link // nil: there is no socket just now
	down   error // why nobody waits for one; nil if they do
	closed bool
	idle   chan struct{} // made by Close, closed when nothing is under way
}

// handover is one connection that is handed over.
type handover struct {
	client *Client
	turn   chan *link // has room for one: where there is a place for it
	fate   chan error // has room for one
}

func (p *Pool) begin() {
	p.start.Do(func() {
		p.ctx, p.cancel = context.WithCancel(context.Background())
		p.done = make(chan struct{})
		p.queue.Capacity, p.queue.TTL = p.Waiting, p.Wait
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
// It returns within Wait and Deadline. The error is of ErrPolicy (Decision.Err), or a *RefusedError, or a *Failure: of ErrUnavailable,
// ErrWouldBlock if no place came free in time, ErrDescriptorPressure if too many wait for one, ErrAckTimeout, ErrAck or ErrTokenMismatch if the
// backend's answer makes no sense; or net.ErrClosed after Close.
func (p *Pool) HandOver(client *Client) error {
	p.begin()
	if len(client.Service) > MaxName {
		return p.failure(ErrOffer, fmt.Errorf("service of %d bytes, at most %d", len(client.Service), MaxName))
	}
	if err := p.Policy.Decide(p.Path, client.Conditions).Err(); err != nil {
		return err
	}
	for moves := 1; ; moves++ {
		err := p.attempt(client)
		var refused *RefusedError
		left := errors.Is(err, errLeaving) || errors.As(err, &refused) && refused.Reason == ReasonStopped
		switch {
		case left && moves < mostMoves:
			continue
		case err == nil:
			p.Policy.Succeeded(p.Path)
		case refused != nil:
			p.Policy.Failed(p.Path, err)
		}
		return err
	}
}

func (p *Pool) attempt(client *Client) error {
	h := &handover{client: client, turn: make(chan *link, 1), fate: make(chan error, 1)}
	if err := p.enter(h); err != nil {
		return err
	}
	select {
	case link := <-h.turn: // mostly: then there is no need for a timer
		return link.handOver(h)
	default:
	}
	overdue := time.NewTimer(p.wait())
	defer overdue.Stop()
	for {
		select {
		case link := <-h.turn:
			return link.handOver(h)
		case err := <-h.fate:
			return err
		case <-overdue.C:
			for _, late := range p.queue.Expire() { // itself, unless its turn has just come
				late.fate <- p.failure(ErrWouldBlock, fmt.Errorf("no place in the window within %v", p.wait()))
			}
		}
	}
}

func (p *Pool) wait() time.Duration {
	if p.Wait <= 0 {
		return DefaultPendingTTL
	}
	return p.Wait
}

// enter gives h a place in the window, or in the queue.
func (p *Pool) enter(h *handover) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return p.failure(ErrUnavailable, net.ErrClosed)
	case p.down != nil:
		return p.down
	}
	if p.link != nil && p.queue.Len() == 0 && p.link.room() > 0 {
		p.link.underWay++
		h.turn <- p.link
		return nil
	}
	if err := p.queue.Push(h); err != nil {
		return p.failure(ErrDescriptorPressure, err)
	}
	if p.link != nil {
		p.advanceLocked()
	}
	return nil
}

// advanceLocked gives the places in the window to those that wait the longest.
func (p *Pool) advanceLocked() {
	for p.link.room() > 0 {
		h, ok := p.queue.Pop()
		if !ok {
			return
		}
		p.link.underWay++
		h.turn <- p.link
	}
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
	p.mu.Lock()
	defer p.mu.Unlock()
	var failure *Failure
	if !errors.As(cause, &failure) {
		failure = p.failure(greetingSentinel(cause), cause)
	}
	p.down = failure
	for _, h := range p.queue.Clear() {
		h.fate <- failure
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
	for _, h := range p.queue.Clear() {
		h.fate <- p.failure(ErrUnavailable, net.ErrClosed)
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
		p.restLocked()
	}
	idle := p.idle
	p.mu.Unlock()
	select {
	case <-idle:
	case <-time.After(p.Deadline):
	}
	p.cancel()
	<-p.done
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
