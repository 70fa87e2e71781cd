package listener

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segue-go/segue/internal/wire"
)

var (
	// ErrIdle says that nothing passed a Relay for its IdleTimeout.
	ErrIdle = errors.New("relay is idle")
	// ErrRelayState says that what was given to RestoreRelay is not what State returned.
	ErrRelayState = errors.New("not the state of a relay")
)

// Relay copies what each of two streams sends to the other one, and can be stopped at any moment without a byte lost: then another Run, here
// or in the process that the two connections are handed on to, goes on where this one was. A direction that ends (EOF) ends for the
// reader, too, while the other one goes on (CloseWrite).
//
// Between two connections of this package it copies in the kernel on Linux (splice(2)), as io.Copy does, and holds neither a buffer
// nor a descriptor for a direction in which nothing is under way. What is under way in a direction is at most [RelayChunk] bytes; when
// Run is stopped they are given back with [Conn.Unread] to the connection that they came from. Other types of connections work, too, as long as they
// have deadlines for reading and writing after which they can still be used; a *tls.Conn can be relayed, but its Write cannot be
// stopped. It is not for message sockets (unixpacket).
//
// While Run is under way it owns the deadlines of both connections, and nobody else reads or writes them.
type Relay struct {
	// IdleTimeout is after how long without a byte in either direction Run ends with ErrIdle. That includes bytes that wait
	// for a reader that does not read. 0 means never. Set it before Run.
	IdleTimeout time.Duration

	ends [2]net.Conn
	ways [2]way // from the connection of that index to the other one

	passedAt atomic.Int64  // when a byte passed last, in ns since began
	began    time.Time     // of this Run
	idle     time.Duration // how long nothing had passed at the end of the last Run

	mu      sync.Mutex
	current *relayRun // nil: none
	reset   [2]bool   // cut: at the end of the Run that is not interrupted
}

// relayRun is one call of Run. What wants to stop it may come too late, and must not stop the next one.
type relayRun struct {
	reason error       // why it is stopped; nil if it is not
	timer  *time.Timer // of IdleTimeout; nil if it has none
}

// NewRelay makes a Relay between a and b. They stay the caller's to close.
func NewRelay(a, b net.Conn) *Relay {
	r := &Relay{ends: [2]net.Conn{a, b}}
	for i := range r.ways {
		r.ways[i].init(r, i)
	}
	return r
}

// relayState is what travels of a Relay beside its connections, a CBOR map. A newer process may have more to say.
type relayState struct {
	Passed [2]int64      `cbor:"1,keyasint"`
	Ended  [2]bool       `cbor:"2,keyasint"`
	Idle   time.Duration `cbor:"3,keyasint,omitempty"` // ns
	Reset  [2]bool       `cbor:"4,keyasint,omitzero"`
}

// RestoreRelay makes the Relay that State was called of, between the same connections in the same order. It fails with
// ErrRelayState. IdleTimeout does not travel, but for how long nothing has passed does.
func RestoreRelay(a, b net.Conn, state []byte) (*Relay, error) {
	var s relayState
	if err := wire.Unmarshal(state, &s); err != nil {
		return nil, fmt.Errorf("%w: %d bytes: %w", ErrRelayState, len(state), err)
	}
	if s.Passed[0] < 0 || s.Passed[1] < 0 || s.Idle < 0 {
		return nil, fmt.Errorf("%w: %d and %d bytes passed, idle for %v; want no negative number", ErrRelayState, s.Passed[0], s.Passed[1], s.Idle)
	}
	r := NewRelay(a, b)
	for i := range r.ways {
		r.ways[i].passed.Store(s.Passed[i])
		r.ways[i].ended = s.Ended[i]
	}
	r.idle, r.reset = s.Idle, s.Reset
	return r, nil
}

// State returns what RestoreRelay needs in the process that the connections are handed on to: some tens of bytes. What Run has read
// and not written is not in it, but with the connections. Call it when Run is not under way.
func (r *Relay) State() []byte {
	s := relayState{Idle: r.idle, Reset: r.reset}
	for i := range r.ways {
		s.Passed[i], s.Ended[i] = r.ways[i].passed.Load(), r.ways[i].ended
	}
	encoded, _ := wire.Marshal(s) // of numbers: does not fail
	return encoded
}

// Passed returns how many bytes were written to b, and how many to a, by this Relay and those that it was restored from. It may be
// called at any time.
func (r *Relay) Passed() (aToB, bToA int64) { return r.ways[0].passed.Load(), r.ways[1].passed.Load() }

// Run copies until both directions have ended, and then returns nil. Otherwise it returns
//
//   - [ErrInterrupted] if ctx has ended, or Conn.Interrupt was called of a connection, before that: nothing is lost, and Run may be called
//     again, or the connections be handed on with State;
//   - [ErrIdle];
//   - the error of the connection that failed. What it still had to say has been passed on; if that was not the whole, the other one was
//     reset, so that its peer does not take it for that.
//
// When it returns, nothing of it runs any more, and both connections have no deadlines. The caller closes them. It runs one direction itself, and has
// a goroutine for the other one.
func (r *Relay) Run(ctx context.Context) error {
	run, err := r.begin()
	if err != nil {
		return err
	}
	stopWaiting := context.AfterFunc(ctx, func() { r.stop(run, ErrInterrupted) })
	defer stopWaiting()
	if r.IdleTimeout > 0 {
		defer r.watch(run).Stop()
	}
	there, back := &r.ways[0], &r.ways[1]
	switch {
	case there.ended:
		back.run(run)
	case back.ended:
		there.run(run)
	default:
		done := make(chan struct{})
		go func() {
			defer close(done)
			back.run(run)
		}()
		there.run(run)
		<-done
	}
	return r.end(run)
}

func (r *Relay) begin() (*relayRun, error) {
	for _, end := range r.ends {
		if c, ok := end.(*Conn); ok && c.LocalAddr().Network() == "unixpacket" {
			return nil, fmt.Errorf("relay a connection of unixpacket, want a stream: %w", errors.ErrUnsupported)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != nil {
		return nil, fmt.Errorf("relay runs already: %w", ErrReading)
	}
	for _, end := range r.ends {
		if c, ok := end.(*Conn); ok {
			c.ClearBoundary() // what is copied in the kernel does not pass through Read
			c.boundary.hold(true)
		}
		_ = end.SetDeadline(time.Time{}) // if it fails, so do reads and writes
	}
	r.began = time.Now()
	r.passedAt.Store(-int64(r.idle))
	r.current = new(relayRun)
	return r.current, nil
}

// stop ends a run. The first reason is what Run returns.
func (r *Relay) stop(run *relayRun, reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != run || run.reason != nil {
		return
	}
	run.reason = reason
	for _, end := range r.ends {
		_ = end.SetDeadline(past) // a net.Conn is safe for that during Read and Write
	}
}

// cut has the relay end with a reset of a connection, whose peer has not got all there was for it.
func (r *Relay) cut(end int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reset[end] = true
}

func (r *Relay) isCut(end int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reset[end]
}

// timedOut stops a run because reading or writing a connection ended at a deadline: stop's, that of Conn.Interrupt, or one that is
// nobody's business while Run is under way.
func (r *Relay) timedOut(run *relayRun, conn net.Conn, err error) {
	if c, ok := conn.(*Conn); ok {
		err = c.boundary.interruption(c.inner, err)
	}
	r.stop(run, err)
}

func (r *Relay) end(run *relayRun) error {
	r.mu.Lock()
	r.current = nil
	r.mu.Unlock()
	r.idle = max(time.Since(r.began)-time.Duration(r.passedAt.Load()), 0)
	err := run.reason
	if err == io.EOF { // way.finish
		err = nil
	}
	for i := range r.ways {
		w := &r.ways[i]
		w.giveBack()
		if err == nil {
			err = w.broken
		}
	}
	for i, end := range r.ends {
		if c, ok := end.(*Conn); ok {
			c.boundary.hold(false)
		}
		_ = end.SetDeadline(time.Time{})
		if r.reset[i] && !errors.Is(err, ErrInterrupted) {
			abort(end)
		}
	}
	return err
}

// watch stops a run that is idle for too long.
func (r *Relay) watch(run *relayRun) *time.Timer {
	r.mu.Lock() // until run has its timer
	defer r.mu.Unlock()
	run.timer = time.AfterFunc(max(r.left(), 0), func() {
		if r.rearm(run) {
			r.stop(run, ErrIdle)
		}
	})
	return run.timer
}

// left is how long it may still be idle.
func (r *Relay) left() time.Duration {
	return r.IdleTimeout - (time.Since(r.began) - time.Duration(r.passedAt.Load()))
}

// rearm sets the timer to when the run is idle for too long. It reports whether it is already.
func (r *Relay) rearm(run *relayRun) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != run {
		return false // it has ended: the timer must not go on
	}
	left := r.left()
	if left > 0 {
		run.timer.Reset(left)
	}
	return left <= 0
}

// note says that bytes have passed.
func (r *Relay) note() { r.passedAt.Store(int64(time.Since(r.began))) }

// abort closes a connection so that its peer sees that the stream is not whole.
func abort(conn net.Conn) {
	if c, ok := conn.(*Conn); ok {
		c.abort()
		return
	}
	if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// isTimeout reports whether err is that of a deadline, and not ETIMEDOUT, which is one of the peer.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// RelayChunk is how many bytes a Relay has under way in each direction at most, beyond what was given back to the connections before Run.
// The more, the fewer system calls; those of both directions fit into one offer of package restart.
const RelayChunk = 240 << 10
