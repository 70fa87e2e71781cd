package listener

import (
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/segue-go/segue/internal/ledger"
	"github.com/segue-go/segue/internal/scm"
)

// ErrAdopt says that what was given to Adopt is no connection that this listener could have accepted.
var ErrAdopt = errors.New("cannot adopt connection")

// Detached is a connection that was taken out of its server at a boundary, on its way to another one. Nobody reads or writes it.
type Detached struct {
	// Descriptor is the connection, close-on-exec and non-blocking. Whoever holds the Detached owns it, and reads and writes nothing.
	Descriptor *Descriptor
	// Residual is what was read from the kernel and not consumed. The next server reads it first. It is three bytes at most, unless
	// Conn.Unread made it more.
	Residual []byte
	// Listener is the name of the listener that it counted with. Empty if that was none.
	Listener string
	// Idle says that it was between two requests, and not before its first.
	Idle bool
	// Left is how long the server would have waited, from At on, for the next request to begin if Idle, for the header of the first
	// one to end if not. 0 means for ever.
	Left time.Duration
	// At is when it was detached, or arrived here.
	At time.Time
	// Options of the socket that package net sets anew when it makes a connection of a descriptor.
	Options ConnOptions
	// Slot is where the next server's process notes what it does with the connection, as long as it may be taken back; nil if it
	// cannot. For package restart.
	Slot *ledger.Slot
	// Refused says that the connection came back from a process that did not want it. It is not detached again.
	Refused bool
}

// Descriptor owns an open file that the Go runtime does not poll.
type Descriptor = scm.Descriptor

// Close closes the connection.
func (d *Detached) Close() error { return d.Descriptor.Close() }

// Remaining is what is left of Left, if that is not for ever.
func (d *Detached) Remaining() time.Duration {
	if d.Left == 0 {
		return 0
	}
	return max(d.Left-time.Since(d.At), expired)
}

// expired is what is left of a deadline that has passed.
const expired = time.Nanosecond

// A request may have come in time and while nobody could read it, and the runtime does not look for it after the deadline. So an idle
// connection on which something waits when it is adopted has no deadline until that is read, however long a busy machine takes
// for it; and each connection is left a grace at least, for what comes in that moment.
const grace = 100 * time.Millisecond

// detach takes the connection out of its server, which is about to read into size bytes. It returns nil if it cannot be detached. The
// caller holds mu, and gives it to who wants it without a lock.
func (b *boundary) detach(c *Conn, size int) *Detached {
	if b.closing {
		return nil
	}
	d := &Detached{Idle: b.idle, At: time.Now(), Listener: c.roster.name}
	if b.idle {
		ahead, known := b.readAhead(size)
		if !known {
			return nil
		}
		d.Residual = append(d.Residual, ahead...)
	}
	d.Residual = append(d.Residual, b.residual...)
	until := b.deadline
	if b.arrival != nil {
		d.Idle, until = !b.arrival.first, b.arrival.until
	}
	if !until.IsZero() {
		d.Left = max(until.Sub(d.At), expired)
	}
	d.Options = c.options()
	var err error
	if d.Descriptor, err = scm.Duplicate(c.inner); err != nil {
		return nil // no descriptor is free: it stays
	}
	b.at = false
	b.detached.Store(true)
	// Not all that writes passes through Write: net.Buffers does not, nor what os.File's WriteTo does with SyscallConn. From here
	// it fails, whoever keeps the Conn for how long. The duplicate keeps the socket open.
	_ = c.inner.Close()
	b.limited = true // to set a deadline is to fail, too
	return d
}

// Sink takes a connection that was detached, and owns it. It is called on the goroutine that served the connection, which then ends,
// and must not block. Asked says that this is the answer to a question of Detach; d is nil if the answer is no.
type Sink func(d *Detached, asked bool)

// Detach asks n connections that wait at a boundary for themselves, and returns how many it found. For each of these sink is
// called soon: with the connection, or with nil if a request began in that instant or no descriptor was free. Those that it finds in the
// middle of a request are given to sink, not asked, as soon as they are through with it; so are those that the Listener accepts
// or adopts from here, until Retain.
//
// A further call goes on with those that no call has come to. One that has come to the end, and found fewer than n, is followed
// by one that begins anew.
//
// Only connections take part whose server says where their boundaries are (MarkFresh, MarkIdle). Others stay.
func (l *Listener) Detach(n int, sink Sink) (asked int) {
	_, asked = l.DetachAmong(math.MaxInt, n, sink)
	return asked
}

// DetachAmong is Detach that comes to no more than most connections that it has not come to before, or not since Retain, whether they wait or
// not. It returns how many it came to, and how many of them it asked.
func (l *Listener) DetachAmong(most, n int, sink Sink) (met, asked int) {
	return l.conns.ask(most, n, sink)
}

// Retain ends what Detach began: connections stay. Sink may still be called for those that are being detached in this instant.
func (l *Listener) Retain() { l.conns.retain() }

// Settle is for a process that was given connections that could be taken back, and cannot any more.
func (l *Listener) Settle() { l.conns.settle() }

// Adopt makes d a connection of this listener, for the server that accepts from Adopted. It owns d in every case. It fails
// with ErrAdopt if the descriptor is not a connection of the listener's kind, and with net.ErrClosed after Adopted was closed.
func (l *Listener) Adopt(d *Detached) error {
	left := d.Remaining()
	c, err := adopt(d)
	if err != nil {
		return err
	}
	if c.LocalAddr().Network() != l.Addr().Network() {
		_ = c.inner.Close()
		return fmt.Errorf("%w: a %T of %s for %s", ErrAdopt, c.inner, c.LocalAddr().Network(), l.Addr().Network())
	}
	b := &c.boundary
	if d.Idle {
		b.newlines = maxNewlines
	}
	if d.Idle || left > 0 {
		b.arrival = &arrival{at: time.Now(), first: !d.Idle}
	}
	if left > 0 {
		b.arrival.until = b.arrival.at.Add(max(left, grace))
		if !(d.Idle && pending(c.inner)) {
			_ = b.limit(c.inner, b.arrival.until)
		}
	}
	l.conns.enter(c)
	if err := l.adopted.push(c); err != nil {
		_, _ = c.shut()
		l.conns.remove(c, false) // it has not ended: it was never served
		return err
	}
	return nil
}

// adopt makes a connection of d, which it owns in every case. The connection is on no roster yet.
func adopt(d *Detached) (*Conn, error) {
	inner, err := d.Descriptor.Conn()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAdopt, err)
	}
	conn, ok := inner.(stream)
	if !ok {
		_ = inner.Close()
		return nil, fmt.Errorf("%w: a %T of %s", ErrAdopt, inner, inner.LocalAddr().Network())
	}
	d.Options.apply(conn)
	c := newConn(conn)
	c.adopted, c.refused, c.known = true, d.Refused, d.Options.shared()
	b := &c.boundary
	b.residual, b.slot = d.Residual, d.Slot
	return c, nil
}

// Adopted returns a listener that accepts the connections that were given to Adopt, and that count in Conns like the others. It stays open
// when the Listener is closed: what could not be handed over comes back this way while the server drains. Close it when the server
// has ended.
func (l *Listener) Adopted() net.Listener { return &l.adopted }
