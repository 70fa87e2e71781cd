package listener

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// way is one direction of a Relay. While it runs, its goroutine alone uses it, but for passed and what mu guards.
type way struct {
	relay    *Relay
	index    int // of where it comes from
	from, to net.Conn
	passed   atomic.Int64
	ended    bool // nothing goes this way any more

	pending []byte // what was taken and not written
	buffer  *chunk // whose pending is; nil if it is nobody's

	splicer splicer

	mu     sync.Mutex
	broken error // of writing
}

// chunk is what is copied at once where splice cannot.
type chunk [32 << 10]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func (w *way) init(r *Relay, index int) {
	w.relay, w.index, w.from, w.to = r, index, r.ends[index], r.ends[1-index]
	from, fromOK := w.from.(*Conn)
	to, toOK := w.to.(*Conn)
	if fromOK && toOK {
		w.splicer.init(w, from.inner, to.inner)
	}
}

// run copies until the direction has ended, or the relay is to.
func (w *way) run(run *relayRun) {
	if c, ok := w.from.(*Conn); ok {
		w.pending = append(w.pending, c.boundary.residual...)
		c.boundary.residual = nil
	}
	for {
		if err := w.flush(); err != nil {
			w.cannotWrite(run, err)
			return
		}
		switch err := w.fill(); {
		case err == io.EOF:
			w.finish(run)
			return
		case err != nil:
			w.cannotRead(run, err)
			return
		}
	}
}

// fill takes what has come, and waits until something has.
func (w *way) fill() error {
	if w.splicer.able() {
		return w.splicer.fill()
	}
	w.buffer = chunks.Get().(*chunk)
	n, err := w.from.Read(w.buffer[:])
	if n > 0 {
		w.pending = w.buffer[:n]
		return nil // an error comes again
	}
	w.drop()
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// flush writes what was taken.
func (w *way) flush() error {
	if w.splicer.able() {
		return w.splicer.flush()
	}
	for len(w.pending) > 0 {
		n, err := w.to.Write(w.pending)
		w.wrote(n)
		w.pending = w.pending[n:]
		if err != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.breaks(err)
		}
	}
	w.drop()
	return nil
}

// drop lets go of the buffer, of which nothing is needed any more.
func (w *way) drop() {
	w.pending = nil
	if w.buffer != nil {
		chunks.Put(w.buffer)
		w.buffer = nil
	}
}

func (w *way) wrote(n int) {
	if n > 0 {
		w.passed.Add(int64(n))
		w.relay.note()
	}
}

// breaks notes that the connection cannot be written any more. The caller holds mu.
func (w *way) breaks(err error) error {
	if !isTimeout(err) && w.broken == nil {
		w.broken = err
	}
	return err
}

// opposite is the way that writes to where this one reads.
func (w *way) opposite() *way { return &w.relay.ways[1-w.index] }

// finish passes on that nothing comes any more.
func (w *way) finish(run *relayRun) {
	// The kernel tells of a reset once. If a Write was told, a Read finds what looks like an end, and is none. It is one if the
	// peer had ended its direction before the reset: that Write fails with EPIPE (net/ipv4/tcp_input.c, tcp_reset).
	opposite := w.opposite()
	opposite.mu.Lock()
	err := opposite.broken
	opposite.mu.Unlock()
	if err == nil && w.relay.isCut(1-w.index) { // a Run that was interrupted was told
		err = syscall.ECONNRESET
	}
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		w.cannotRead(run, err)
		return
	}
	w.ended = true
	to, ok := w.to.(interface{ CloseWrite() error })
	if !ok {
		w.relay.stop(run, io.EOF) // to close it is the only way to say so
		return
	}
	_ = to.CloseWrite() // if it fails, the other direction fails, too
}

// cannotRead ends the relay: half of a stream came from where nothing comes any more.
func (w *way) cannotRead(run *relayRun, err error) {
	if isTimeout(err) || errors.Is(err, ErrInterrupted) {
		w.relay.timedOut(run, w.from, err)
		return
	}
	if !errors.Is(err, net.ErrClosed) { // by this process
		w.relay.cut(1 - w.index)
	}
	w.relay.stop(run, err)
}

// cannotWrite ends this direction. What the peer has still said is passed on, and then the other direction ends or fails, too.
func (w *way) cannotWrite(run *relayRun, err error) {
	if isTimeout(err) {
		w.relay.timedOut(run, w.to, err)
		return
	}
	w.ended = true
	w.splicer.discard()
	w.drop()
	switch {
	case errors.Is(err, net.ErrClosed):
		w.relay.stop(run, err)
	case !errors.Is(err, syscall.EPIPE): // see finish, which may have come too early
		w.relay.cut(w.index)
	}
}

// giveBack returns what was taken and not written to where it came from, if that can take it back; else the next Run writes it.
func (w *way) giveBack() {
	left := w.splicer.reclaim(w.pending)
	if c, ok := w.from.(*Conn); ok {
		c.Unread(left)
		left = nil
	} else if len(left) > 0 {
		left = append([]byte(nil), left...) // out of the buffer
	}
	w.drop()
	w.pending = left
}
