package listener

import "time"

// Besides the server, two others set the deadline for reading of what is inside a Conn: whoever wants its Read to come back, and the
// predecessor of a connection that was adopted. What the server wants is noted, and is in force whenever none of them needs another.

// setReadDeadline notes the server's deadline, and applies it unless another one is in force just now.
func (b *boundary) setReadDeadline(inner stream, t time.Time) error {
	b.mu.Lock()
	err := b.want(inner, t)
	b.mu.Unlock()
	return err
}

// want is setReadDeadline, with mu held.
func (b *boundary) want(inner stream, t time.Time) error {
	if arrival := b.arrival; arrival != nil && arrival.begun {
		// After the header: the time for the whole request, by the same clock (net/http/server.go, readRequest).
		if b.arrival = nil; !t.IsZero() {
			t = t.Add(arrival.late)
		}
	}
	b.deadline = t
	if b.at && b.idle {
		if b.deadlines == 0 {
			b.at = false
		} else {
			b.deadlines--
		}
	}
	if b.asked != nil || b.arrival != nil || b.woken {
		return nil
	}
	return b.limit(inner, t)
}

// limit sets the deadline of inner, but does not take one away that is not there. net/http does that three times in each request, and
// it costs more than all that a boundary does besides.
func (b *boundary) limit(inner stream, t time.Time) error {
	if t.IsZero() && !b.limited {
		return nil
	}
	err := inner.SetReadDeadline(t)
	b.limited = b.exposed || err != nil || !t.IsZero()
	return err
}

// restoreDeadline ends what ask or interrupt began.
func (b *boundary) restoreDeadline(inner stream) {
	if b.arrival != nil && !b.arrival.begun {
		_ = b.limit(inner, b.arrival.until)
	} else {
		_ = b.limit(inner, b.deadline)
	}
}

// expose has each deadline set on inner from here, whatever is known of the one that it has.
func (b *boundary) expose() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limited, b.exposed = true, true
}
