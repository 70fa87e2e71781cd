package handoff

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/segue-go/segue/internal/scm"
)

// readAhead is how many bytes are taken from the kernel at once. An offer of a connection has about 70.
const readAhead = 4 << 10

// stream is what a Session reads from: bytes, and the descriptors that came beside them.
//
// One recvmsg(2) returns what several sendmsg(2) have sent, but the descriptors of one only, and does not say which bytes these came with. So
// they belong to the offer whose token is complete next. Those that no offer has claimed when all that came with them is read are an error,
// and so are more before that. One goroutine reads; anyone may call close.
type stream struct {
	receiver *scm.Receiver
	patience time.Duration // for the rest of a frame
	until    time.Time     // when that is over; zero if nobody has waited for it yet

	buffer      []byte
	first, last int // of what is in it

	mu        sync.Mutex // guards the rest
	unclaimed *scm.Descriptors
	closed    bool
}

func newStream(conn *net.UnixConn) *stream {
	return &stream{receiver: scm.NewReceiver(conn), patience: FrameTimeout, buffer: make([]byte, readAhead)}
}

// await returns when there is a byte to be read.
func (s *stream) await(ctx context.Context) error {
	if s.first < s.last {
		return nil
	}
	return s.fill(ctx, time.Time{}, readAhead)
}

// settle fails with ErrDescriptorCount if all is read that descriptors came with, and no offer has claimed them.
func (s *stream) settle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.unclaimed.Len()
	if n == 0 || s.first < s.last {
		return nil
	}
	_ = s.unclaimed.Close()
	s.unclaimed = nil
	return fmt.Errorf("%w: %d beside no offer", ErrDescriptorCount, n)
}

// read fills p, within what is left of the patience with this frame.
func (s *stream) read(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		buffered := copy(p, s.buffer[s.first:s.last])
		s.first += buffered
		if p = p[buffered:]; len(p) == 0 {
			break
		}
		if s.until.IsZero() {
			s.until = time.Now().Add(s.patience)
		}
		if len(p) < readAhead {
			if err := s.fill(ctx, s.until, s.ahead(len(p))); err != nil {
				return err
			}
			continue
		}
		n, err := s.receive(ctx, s.until, p) // no more than is wanted, and not by way of the buffer
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// ahead is how many bytes may be read if n are wanted: while descriptors wait for the rest of their token, those of the next offer must not come
// along with it.
func (s *stream) ahead(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unclaimed.Len() > 0 {
		return min(n, readAhead)
	}
	return readAhead
}

// fill replaces what was read by n bytes at most.
func (s *stream) fill(ctx context.Context, until time.Time, n int) error {
	n, err := s.receive(ctx, until, s.buffer[:n])
	if err != nil {
		return err
	}
	s.first, s.last = 0, n
	return nil
}

// receive reads up to len(p) bytes, and keeps the descriptors that came with them.
func (s *stream) receive(ctx context.Context, until time.Time, p []byte) (int, error) {
	n, descriptors, err := s.receiver.Some(ctx, until, ErrFrameTimeout, p)
	if err != nil {
		return 0, err
	}
	if descriptors.Len() == 0 {
		return n, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unclaimed.Len() > 0 || s.closed {
		_ = descriptors.Close()
		return 0, fmt.Errorf("%w: %d more than were announced", ErrDescriptorCount, descriptors.Len())
	}
	s.unclaimed = descriptors
	return n, nil
}

// take returns the descriptors of an offer whose token was read. They are the caller's.
func (s *stream) take(want int) (*scm.Descriptors, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.unclaimed.Len(); have != want {
		return nil, fmt.Errorf("%w: %d, want %d", ErrDescriptorCount, have, want)
	}
	taken := s.unclaimed
	s.unclaimed = nil
	return taken, nil
}

// close closes descriptors that no offer has claimed, and that come from here on.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	_ = s.unclaimed.Close()
	s.unclaimed = nil
}
