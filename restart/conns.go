package restart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/listener"
)

// MaxConnState is how many bytes may travel with one Detach: the state, and what was given back to the connections with Conn.Unread.
const MaxConnState = handoff.MaxData - 4<<10

// MaxConns is how many connections one Detach may hand on.
const MaxConns = handoff.MaxDescriptors

// Why Detach leaves a connection with its caller, besides listener.ErrReading, listener.ErrDetached and a lack of descriptors.
var (
	// ErrNotLeaving says that the generation serves: it has nobody to hand its connections on to yet.
	ErrNotLeaving = errors.New("generation is not leaving")
	// ErrNoSuccessor says that nobody takes the connection: the generation stops, or the successor does not want it. It is to be
	// drained.
	ErrNoSuccessor = errors.New("no successor takes the connection")
	// ErrNoAdopter says that this generation has no Adopt for the kind, and so could not take the connection back.
	ErrNoAdopter = errors.New("no adopter of that kind")
	// ErrConnState says that a Detach is of more than MaxConnState bytes or MaxConns connections.
	ErrConnState = errors.New("too much to hand on")
)

// Conns serves the connections that ln accepts, for as long as this generation serves: with a call of handler each, on a goroutine of
// its own. The connection is closed when handler returns, unless it was handed on by Detach.
//
// When the generation leaves, ctx ends. The handler of a connection that can move then brings it to a point at which all there is to
// know of it fits into a few bytes, and calls Detach. To be woken for that from a Read that waits, it says so at its beginning:
//
//	stop := context.AfterFunc(ctx, c.Interrupt)
//	defer stop()
//	for {
//		n, err := c.Read(buffer)
//		if errors.Is(err, listener.ErrInterrupted) {
//			if gen.Detach("echo", state, c) == nil {
//				return // c is the successor's
//			}
//			continue // it stays here until the end of Options.Drain
//		}
//		…
//
// Connections of handlers that do not detach are theirs until the end of Options.Drain, and closed then.
//
// These connections move after the commit only: a successor that has read from one cannot give it back, because what it has made of
// the bytes is in its state. Until the commit the predecessor simply serves on, so a rollback costs them nothing. They move as fast as
// their handlers detach: Options.Spread does not hold for them.
func (g *Generation) Conns(ln *listener.Listener, handler func(ctx context.Context, c *listener.Conn)) {
	g.serveAccepted(ln, new(sync.WaitGroup), handler)
}

// serveAccepted is Conns. Inside counts what accepts and each handler, and is not empty before the last of them has returned.
func (g *Generation) serveAccepted(ln *listener.Listener, inside *sync.WaitGroup, handler func(ctx context.Context, c *listener.Conn)) {
	g.raw.listeners[ln.Name()] = ln
	inside.Add(1)
	interrupted := make(chan struct{})
	g.Add(
		func() error { return g.serveConns(ln, inside, handler, interrupted) },
		func(error) { close(interrupted) },
	)
}

// Adopt has fn serve connections that are handed on by Detach with that kind, each as if it had just been accepted: in a goroutine of its
// own, closed when fn returns unless it is handed on again. What they count in is the listener that accepted the first of them, if
// there is one of its name here.
//
// In the generation that handed a connection on, fn gets it back if the successor did not take it: c.Refused then reports true, ctx has
// ended, and another Detach fails with ErrNoSuccessor. It is to be drained.
//
// Adopt comes before Run. A later one for the same kind replaces it.
func (g *Generation) Adopt(kind string, fn func(ctx context.Context, c *listener.Conn, state []byte)) {
	g.raw.adopters[kind] = adopterOf{single: true, serve: func(ctx context.Context, conns []*listener.Conn, state []byte) {
		fn(ctx, conns[0], state)
	}}
}

// AdoptAll is Adopt for connections that are handed on several at a time: a client's and that of the backend it talks to, or all
// members of a room. They arrive, or come back, together.
func (g *Generation) AdoptAll(kind string, fn func(ctx context.Context, conns []*listener.Conn, state []byte)) {
	g.raw.adopters[kind] = adopterOf{serve: fn}
}

// Detach hands connections on to the successor, together, with what it needs to know of them. Call it when the generation is leaving,
// from the handler of Conns or Adopt, or for connections that Hijack or Own returned. Nobody may be reading or writing them, and what was
// read of them and not consumed is given back with Conn.Unread before, or is part of state.
//
// If it returns nil, they are not the caller's any more, and state neither: the successor has them soon, or they come back to this
// generation's Adopt. If it returns an error, nothing has happened, and they stay with the caller, who goes on with them or drains them.
// The error is ErrNotLeaving, ErrNoSuccessor, ErrNoAdopter, ErrConnState, one of package listener, or the system's if no descriptor is free.
//
// Deadlines do not travel; socket options of package net do (no delay, keepalive).
func (g *Generation) Detach(kind string, state []byte, conns ...*listener.Conn) error {
	if err := g.detach(kind, state, conns); err != nil {
		return fmt.Errorf("detach %.64q: %w", kind, err)
	}
	return nil
}

func (g *Generation) detach(kind string, state []byte, conns []*listener.Conn) error {
	if g.raw.ctx.Err() == nil {
		return ErrNotLeaving
	}
	if a, known := g.raw.adopters[kind]; !known || a.single && len(conns) != 1 || len(conns) == 0 || len(kind) > handoff.MaxName {
		return fmt.Errorf("%w: %d connections", ErrNoAdopter, len(conns))
	}
	for _, c := range conns {
		if c.Refused() {
			return ErrNoSuccessor
		}
	}
	if len(conns) > MaxConns {
		return fmt.Errorf("%w: %d connections, at most %d", ErrConnState, len(conns), MaxConns)
	}
	mover := g.mover()
	if mover == nil {
		return ErrNoSuccessor
	}
	size := len(state)
	for _, c := range conns {
		size += c.Unreads()
	}
	if size > MaxConnState {
		return fmt.Errorf("%w: %d bytes of state, at most %d", ErrConnState, size, MaxConnState)
	}
	// Before they are out, so that a drain that waits for them does not find them nowhere.
	if !mover.departures.expect(kind, len(conns)) {
		return ErrNoSuccessor
	}
	detached, err := listener.DetachConns(conns...)
	if err != nil {
		mover.departures.settle(len(conns))
		return err
	}
	p := &party{kind: kind, state: state, members: detached, home: g.raw}
	if !mover.departures.putParty(p) {
		defer mover.departures.settle(len(conns))
		for _, c := range p.moving() {
			mover.giveBack(c)
		}
	}
	return nil
}

// Own makes conn, a *net.TCPConn or *net.UnixConn that this process has dialed, one that can be handed on by Detach. It is drained like
// one that was accepted.
func (g *Generation) Own(conn net.Conn) (*listener.Conn, error) { return g.raw.strays.Add(conn) }

// Serving returns a channel that is closed when this generation is the one that serves, without a way back: at the commit, or, in a first
// generation, in Run. Connections that are handed on by Detach come after that.
func (g *Generation) Serving() <-chan struct{} { return g.committed }

// Context returns a context that ends when this generation leaves, like the channel of Leaving: what handlers of Conns get, for those of
// net/http.
func (g *Generation) Context() context.Context { return g.raw.ctx }

// Hijack takes the connection of a request from net/http, as http.Hijacker does, and gives back to it what the server has read ahead: all
// that the client has sent after the header is to be read from it. It counts in its listener's Conns until it is closed or handed on.
//
// It fails with errors.ErrUnsupported, and without effect, for connections that cannot be handed on: over TLS, of HTTP/2, or not of a
// listener of package listener.
func Hijack(w http.ResponseWriter, r *http.Request) (*listener.Conn, error) {
	c, ok := r.Context().Value(connKey{}).(*listener.Conn)
	if !ok || r.ProtoMajor != 1 {
		return nil, fmt.Errorf("hijack a connection of %s: %w", r.Proto, errors.ErrUnsupported)
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	if conn != net.Conn(c) {
		_ = conn.Close()
		return nil, fmt.Errorf("hijack a connection: a %T, want a %T", conn, c)
	}
	ahead, _ := buffered.Peek(buffered.Reader.Buffered())
	c.Unread(ahead)
	return c, nil
}

// rawConns is a generation's side of connections that are not net/http's. Its maps are complete when Run begins.
type rawConns struct {
	ctx       context.Context // of handlers: ends when the generation leaves
	leave     context.CancelFunc
	moving    context.Context // ends when it has drained
	listeners map[string]*listener.Listener
	movable   map[string]*origin
	adopters  map[string]adopterOf
	strays    listener.Strays
	unserved  atomic.Int64 // connections that were adopted, and closed at once, because another of their party could not be
}

type adopterOf struct {
	single bool
	serve  func(ctx context.Context, conns []*listener.Conn, state []byte)
}

func newRawConns(g *Generation) *rawConns {
	r := &rawConns{
		moving:    g.moving,
		listeners: make(map[string]*listener.Listener),
		movable:   g.movable,
		adopters:  make(map[string]adopterOf),
	}
	r.ctx, r.leave = context.WithCancel(context.Background())
	return r
}

// start calls handle for connections, in a goroutine.
func (r *rawConns) start(conns []*listener.Conn, handle func()) {
	go func() {
		defer closeConns(conns)
		handle()
	}()
}

func closeConns(conns []*listener.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// receive has what has arrived, or come back, served. It owns the members in every case.
func (r *rawConns) receive(p *party) error {
	adopter, known := r.adopters[p.kind]
	conns := make([]*listener.Conn, 0, len(p.members))
	var err error
	for _, d := range p.members {
		var c *listener.Conn
		switch {
		case err != nil:
		case !known:
			err = ErrNoAdopter
		case r.moving.Err() != nil:
			err = context.Cause(r.moving)
		default:
			c, err = r.adopt(d)
		}
		if c != nil {
			conns = append(conns, c)
		} else {
			_ = d.Close()
		}
	}
	if err != nil {
		closeConns(conns)
		r.unserved.Add(int64(len(conns)))
		return fmt.Errorf("adopt %d connections as %.64q: %w", len(p.members), p.kind, err)
	}
	r.start(conns, func() { adopter.serve(r.ctx, conns, p.state) })
	return nil
}

func (r *rawConns) adopt(d *listener.Detached) (*listener.Conn, error) {
	if ln, known := r.listeners[d.Listener]; known {
		return ln.AdoptConn(d)
	}
	if o, known := r.movable[d.Listener]; known {
		return o.AdoptConn(d)
	}
	return r.strays.AdoptConn(d)
}

// serveConns is the actor of Conns.
func (g *Generation) serveConns(ln *listener.Listener, inside *sync.WaitGroup, handler func(context.Context, *listener.Conn), interrupted <-chan struct{}) error {
	served := make(chan error, 1)
	go func() {
		defer inside.Done()
		served <- g.raw.acceptAll(ln, inside, handler)
	}()
	select {
	case err := <-served:
		select {
		case <-g.leaving:
		default:
			return err
		}
	case <-interrupted:
		<-g.leaving
	}
	ctx, cancel := g.drainContext()
	defer cancel()
	g.intake.close(ctx)
	g.drainConns(ctx, ln, ln.Name())
	return nil
}

// Accept is tried again after these times when it fails for a reason that can pass, like a lack of descriptors.
const (
	minAcceptDelay = 5 * time.Millisecond
	maxAcceptDelay = time.Second
)

func (r *rawConns) acceptAll(ln *listener.Listener, inside *sync.WaitGroup, handler func(context.Context, *listener.Conn)) error {
	delay := minAcceptDelay
	for {
		c, err := ln.AcceptConn()
		if err == nil {
			delay = minAcceptDelay
			inside.Add(1)
			r.start([]*listener.Conn{c}, func() {
				defer inside.Done()
				handler(r.ctx, c)
			})
			continue
		}
		//lint:ignore SA1019 net/http has no better way either
		if failed, ok := errors.AsType[net.Error](err); !ok || !failed.Temporary() {
			return err
		}
		select {
		case <-time.After(delay):
			delay = min(2*delay, maxAcceptDelay)
		case <-r.ctx.Done():
		}
	}
}

// drainable is a listener.Listener or a listener.Strays.
type drainable interface {
	Conns() int
	WaitConns(ctx context.Context) error
	CloseConns() int
}

// drainConns waits until the connections have ended or moved, and closes what is left at the end of the drain.
func (g *Generation) drainConns(ctx context.Context, from drainable, name string) {
	if waitEmpty(ctx, from, g.mover()) == nil {
		return
	}
	if cut := from.CloseConns(); cut > 0 {
		g.cut.Add(int64(cut))
		g.log.Warn("closed connections at the end of the drain", "listener", name, "cut", cut, "drain", g.options.Drain)
	}
}

// straysActor drains connections that are no listener's.
func (g *Generation) straysActor() (func() error, func(error)) {
	interrupted := make(chan struct{})
	return func() error {
		<-interrupted
		<-g.leaving
		ctx, cancel := g.drainContext()
		defer cancel()
		g.drainConns(ctx, &g.raw.strays, "")
		return nil
	}, func(error) { close(interrupted) }
}
