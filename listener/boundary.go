package listener

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segue-go/segue/internal/ledger"
)

// boundary knows whether a connection is between two requests, and so can be taken out of its server without the client
// noticing. Its zero value is that of a connection of which nobody says where its boundaries are: it never is at one.
//
// The server says when it is about to read its first request (MarkFresh) and when it has answered one (MarkIdle). What follows is
// decided here, by what passes through Read: with the first byte the connection is at its boundary no more, and not again before
// the server says so. The states of net/http alone would not do: it goes to StateActive after the whole header, when a part of it
// may long have been read (net/http/server.go, serve).
type boundary struct {
	detached atomic.Bool

	mu        sync.Mutex
	at        bool         // at its boundary
	closing   bool         // it is to be closed, or was: it is not detached any more
	foreign   bool         // it is not the server's any more, or not of its protocol: it is never at one
	idle      bool         // that was marked by MarkIdle
	deadlines uint8        // how often the server may set the read deadline until an idle boundary is over
	blocked   bool         // a Read that began at the boundary is in the kernel
	reading   bool         // a Read is under way
	held      bool         // a Relay has it
	woken     bool         // Interrupt was called, and no Read has failed for it yet
	ahead     bool         // nothing was delivered since MarkIdle
	newlines  uint8        // how many CR and LF may be skipped before the first request
	ntail     uint8        // of tail
	tail      [3]byte      // the last bytes delivered, of which the server may have kept some for the next request
	slow      atomic.Int32 // how many more bytes of this request are delivered one by one
	sink      Sink         // who gets it as soon as it is at a boundary; nil if it stays
	asked     Sink         // who made this Read come back, by an inner deadline in the past, and is owed an answer; nil if nobody
	slot      *ledger.Slot // where to note what becomes of it, as long as a predecessor may take it back
	arrival   *arrival     // adopted, and its first request here has not got its deadline yet; else nil
	deadline  time.Time    // for reading, as the server wants it
	limited   bool         // inner may have a deadline for reading
	exposed   bool         // inner may get one that did not pass through here
	residual  []byte       // to be read before what comes from the kernel
}

// arrival is what is only to be known of a connection that was adopted, until its next request.
type arrival struct {
	at    time.Time
	until time.Time     // the predecessor's deadline, in force as long as no byte has come; zero if it had none
	first bool          // it is before its first request
	begun bool          // a byte has come
	late  time.Duration // by how much the request began later than the server takes it to have
}

// serverBuffer is the size in bytes of the buffer that net/http reads requests into (bufio's default).
const serverBuffer = 4096

// MarkFresh is for a server like net/http's, at StateNew: it is about to read its first request.
func (c *Conn) MarkFresh() {
	b := &c.boundary
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at, b.idle = !b.foreign, false
}

// MarkIdle is for a server like net/http's, at StateIdle: it has answered a request.
//
// It then sets the read deadline once, and blocks in Peek(4) on a buffer of 4096 bytes: the slice that is passed to Read tells
// how many bytes of the next request, three at most, are in that buffer already. When Peek is done the server sets the deadline
// again, and the boundary is over, even if all that Peek wanted was in the buffer and no Read took place: after that, a Read
// into the whole buffer no longer means that the server holds nothing, because a line of the header may have been consumed
// (net/http/server.go, serve and readRequest; a pipelined request whose first line ends with what has arrived is such a case).
func (c *Conn) MarkIdle() {
	b := &c.boundary
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.foreign {
		return
	}
	b.at, b.idle, b.deadlines = true, true, 1
	b.ahead = true
	b.arrival = nil
	if b.slow.Load() != 0 { // to store always is an expensive instruction
		b.slow.Store(0)
	}
}

// ClearBoundary is for the server: nothing is known of this connection's boundaries from here on, whatever is marked (it was hijacked,
// say).
func (c *Conn) ClearBoundary() {
	b := &c.boundary
	b.mu.Lock()
	defer b.mu.Unlock()
	b.foreign, b.at, b.ahead = true, false, false
	b.slow.Store(0)
	if b.slot != nil {
		b.slot.Use()
	}
}

// outcome is what is to be done after a step of a Read.
type outcome uint8

const (
	finished    outcome = iota // it has its result
	again                      // it has to be done again
	gone                       // there is nothing to be read here any more
	interrupted                // Interrupt was called
)

// read is Conn.Read when there is more to it than to read.
func (b *boundary) read(c *Conn, p []byte) (int, error) {
	for {
		slot, tell, next := b.enter(c, len(p))
		if tell != nil {
			tell()
		}
		switch next {
		case gone:
			return 0, io.EOF
		case interrupted:
			return 0, ErrInterrupted
		}
		n, err := b.readInner(c.inner, slot, b.paced(p))
		if n > 0 && b.newlines > 0 {
			if n = b.skipNewlines(p[:n]); n == 0 {
				b.skipped(c.inner)
				continue
			}
		}
		if n, next, err = b.conclude(c, p, n, err); next != again {
			return n, err
		}
	}
}

// conclude is called after a Read that had the result n and err. It returns what the server is to see, unless it is to be done again.
func (b *boundary) conclude(c *Conn, p []byte, n int, err error) (int, outcome, error) {
	tell, next := b.leave(c, p, n, err)
	if tell != nil {
		tell()
	}
	switch next {
	case gone:
		return 0, next, io.EOF
	case interrupted:
		return 0, next, ErrInterrupted
	}
	return n, next, err
}

// readInner reads, with what was read before, by another process or by one who gave it back, in front of it. At a boundary it waits
// for the kernel first: as long as no more comes than was there before, the connection is at its boundary as it was there.
func (b *boundary) readInner(inner stream, slot *ledger.Slot, p []byte) (int, error) {
	kept := len(b.residual) // only the reader changes it, once the connection is in use
	if kept == 0 {
		return readKernel(inner, slot, p)
	}
	if len(p) <= kept || !b.blocked {
		if slot != nil {
			slot.Use()
		}
		n := copy(p, b.residual)
		b.residual = b.residual[n:]
		return n, nil
	}
	n, err := readKernel(inner, slot, p[kept:])
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, err
	}
	copy(p, b.residual)
	b.residual = nil
	return kept + n, nil // an error comes again
}

// readKernel takes bytes from the kernel, and notes it before it does.
func readKernel(inner stream, slot *ledger.Slot, p []byte) (int, error) {
	if slot == nil || slot.InUse() {
		return inner.Read(p)
	}
	return readNoted(inner, slot, p)
}

// skipNewlines drops what RFC 9112, section 2.2, wants dropped before a request: the line end that some clients send after a
// body. net/http does so after a POST, up to this number, but a server that adopts a connection does not know of the POST. As with
// residual, only the reader changes newlines.
func (b *boundary) skipNewlines(p []byte) int {
	skipped := 0
	for skipped < len(p) && b.newlines > 0 && (p[skipped] == '\r' || p[skipped] == '\n') {
		skipped++
		b.newlines--
	}
	if skipped < len(p) {
		b.newlines = 0
	}
	return copy(p, p[skipped:])
}

const maxNewlines = 4

// enterQuietly is enter if all that there is to do is to read, as most of the time. If not, it does nothing, and reports so.
func (b *boundary) enterQuietly() bool {
	b.mu.Lock()
	quiet := b.sink == nil && b.slot == nil && b.asked == nil && !b.woken && !b.detached.Load() &&
		len(b.residual) == 0 && b.newlines == 0 && b.slow.Load() == 0
	if quiet {
		b.blocked, b.reading = b.at, true
	}
	b.mu.Unlock()
	return quiet
}

// leaveQuietly is leave if nobody wanted anything during the Read that delivered p. If not, it does nothing, and reports so.
func (b *boundary) leaveQuietly(inner stream, p []byte) bool {
	b.mu.Lock()
	quiet := b.asked == nil && !b.woken
	if quiet {
		b.blocked, b.reading = false, false
		if len(p) > 0 {
			b.begin(inner, p, false)
		}
	}
	b.mu.Unlock()
	return quiet
}

// enter is called before a Read of size bytes. It returns where the reader is to note what it does, and what is to be called
// without a lock.
func (b *boundary) enter(c *Conn, size int) (slot *ledger.Slot, tell func(), next outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := b.asked // not nil only after a Read that got nothing but line ends, and so had no leave
	b.reading, b.blocked, b.asked = false, false, nil
	if asked != nil {
		tell = func() { asked(nil, true) }
	}
	if b.detached.Load() {
		return nil, tell, gone
	}
	if b.woken {
		b.woken = false
		b.restoreDeadline(c.inner)
		return nil, tell, interrupted
	}
	if b.at && b.sink != nil {
		if d := b.detach(c, size); d != nil {
			sink := b.sink
			return nil, func() { sink(d, asked != nil) }, gone
		}
	}
	if asked != nil {
		b.restoreDeadline(c.inner)
	}
	b.pace()
	b.blocked, b.reading = b.at, true
	if b.slot != nil && b.at && b.idle && !b.closing && len(b.residual) == 0 {
		if ahead, known := b.readAhead(size); known {
			b.slot.Clean(ahead)
		}
	}
	return b.slot, tell, finished
}

// readAhead returns the bytes of the next request that the server holds already, at a boundary that MarkIdle marked. It is not
// known if size is not that of the buffer that MarkIdle knows.
func (b *boundary) readAhead(size int) (ahead []byte, known bool) {
	n := serverBuffer - size
	if n < 0 || n > int(b.ntail) {
		return nil, false
	}
	return b.tail[int(b.ntail)-n : b.ntail], true
}

// leave is called after a Read.
func (b *boundary) leave(c *Conn, p []byte, n int, err error) (tell func(), next outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	blocked, asked := b.blocked, b.asked
	b.blocked, b.asked, b.reading = false, nil, false
	if asked != nil {
		tell = func() { asked(nil, true) }
	}
	if n > 0 {
		b.begin(c.inner, p[:n], asked != nil)
		return tell, finished
	}
	if b.woken && errors.Is(err, os.ErrDeadlineExceeded) {
		b.woken = false
		b.restoreDeadline(c.inner)
		return tell, interrupted
	}
	if asked == nil {
		return tell, finished
	}
	if !blocked || !errors.Is(err, os.ErrDeadlineExceeded) {
		if !b.woken {
			b.restoreDeadline(c.inner)
		}
		return tell, finished
	}
	if b.sink != nil {
		if d := b.detach(c, len(p)); d != nil {
			return func() { asked(d, true) }, gone
		}
	}
	// It cannot be, or need not be any more: the deadline is the server's again.
	b.restoreDeadline(c.inner)
	return tell, again
}

// begin notes that bytes of the next request were delivered.
func (b *boundary) begin(inner stream, p []byte, woken bool) {
	if !b.idle {
		b.at = false // else Peek is not satisfied with less than four bytes, and sets the deadline when it is
	}
	b.ahead = false
	b.remember(p)
	if arrival := b.arrival; arrival != nil && !arrival.begun {
		arrival.begun = true
		// The server set it when it adopted what it took for a new connection. For the client, the time for its first request
		// began when it connected, and that for any other begins now.
		if !arrival.first {
			arrival.late = time.Since(arrival.at)
		}
		switch {
		case b.deadline.IsZero():
		case !arrival.first:
			b.deadline = b.deadline.Add(arrival.late)
		case !arrival.until.IsZero() && arrival.until.Before(b.deadline):
			b.deadline = arrival.until
		}
		woken = true
	}
	if woken && !b.woken {
		_ = b.limit(inner, b.deadline)
	}
}

// remember keeps the end of what was delivered, oldest first.
func (b *boundary) remember(p []byte) {
	const most = len(b.tail)
	if len(p) >= most {
		b.tail, b.ntail = [most]byte(p[len(p)-most:]), uint8(most)
		return
	}
	if excess := int(b.ntail) + len(p) - most; excess > 0 {
		b.ntail = uint8(copy(b.tail[:], b.tail[excess:b.ntail]))
	}
	b.ntail += uint8(copy(b.tail[b.ntail:], p))
}

// skipped notes that what was read was no request: the connection is as it was, and has the deadline that it had not as long as
// something waited.
func (b *boundary) skipped(inner stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.slot != nil && b.at && !b.closing && len(b.residual) == 0 {
		b.slot.Clean(nil)
	}
	b.restoreDeadline(inner)
}

// ask lets sink have the connection as soon as it is at a boundary. It reports whether somebody had asked before, and whether it is at a
// boundary now, as far as can be told: sink is then called soon, with nil if that was wrong or no descriptor was free.
func (b *boundary) ask(inner stream, sink Sink) (before, waits bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, b.sink = b.sink != nil, sink
	if !b.blocked || b.asked != nil {
		return before, false
	}
	b.asked = sink
	_ = b.limit(inner, past) // net.Conn is safe for that during a Read
	return before, true
}

// retain ends what ask began. Who was promised an answer gets it.
func (b *boundary) retain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sink = nil
}

// settle notes that nobody can take the connection back any more. A Read under way may still write into its slot.
func (b *boundary) settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slot = nil
}
