package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/segue-go/segue/internal/scm"
	"github.com/segue-go/segue/internal/wire"
)

const (
	// FrameTimeout is how long the rest of a frame, and the descriptors beside it, may take once its first byte came.
	FrameTimeout = 5 * time.Second

	// strangerBody is the largest body that is read from a peer that has not proved anything yet.
	strangerBody = 4 << 10
)

var (
	// ErrFrameTimeout says that a peer began a frame and did not finish it within FrameTimeout.
	ErrFrameTimeout = errors.New("frame not completed in time")
	// ErrTruncated says that the kernel dropped descriptors on receipt: the table of descriptors is full.
	ErrTruncated = scm.ErrTruncated
	// ErrDescriptorCount says that other descriptors came than were announced. They were closed.
	ErrDescriptorCount = scm.ErrDescriptorCount
	// ErrCutOff says that a part of a message was sent, this one or an earlier one: nothing more can be sent in this session.
	ErrCutOff = scm.ErrCutOff
	// ErrControlMessage says that something other than descriptors came as control data.
	ErrControlMessage = scm.ErrControlMessage
)

// Session is one end of a conversation between two processes over a connected stream Unix socket.
//
// Send may be called by several goroutines at once, Receive by one; both at the same time. Any error of Receive other
// than the end of its context before a frame began leaves the stream in an unknown place: close the session.
type Session struct {
	conn   *net.UnixConn
	stream *stream

	sending sync.Mutex // keeps a frame and the descriptors beside it together
	cut     error      // why a frame is not whole, and so nothing can follow it; guarded by sending

	// announced holds the tokens of offers whose descriptors have not come yet.
	announced    TokenStore
	capabilities []string // of this side
	body         int      // bytes of a body that the peer may send
	together     bool     // the token of an offer is sent with its frame
}

// NewSession takes ownership of conn.
func NewSession(conn *net.UnixConn) *Session {
	return &Session{conn: conn, stream: newStream(conn), capabilities: capabilities(), body: strangerBody}
}

// Close ends the session. Calls under way return an error.
func (s *Session) Close() error {
	s.stream.close()
	return s.conn.Close()
}

// Send writes one message, and for an Offer the descriptors of its entries, which stay the caller's. It fails with the
// cause of ctx, with ErrTooLarge, with ErrCutOff, or with the error of sendmsg(2): EPIPE when the peer is gone.
func (s *Session) Send(ctx context.Context, message Message) error {
	frame, token, descriptors, err := s.encode(message)
	if err != nil {
		return err
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	switch {
	case s.cut != nil:
		err = s.cut
	case s.together:
		err = scm.Send(ctx, s.conn, append(frame, token...), descriptors)
	default:
		if err = scm.Send(ctx, s.conn, frame, nil); err == nil && descriptors != nil {
			if err = scm.Send(ctx, s.conn, token, descriptors); err != nil {
				err = fmt.Errorf("%w: %w", ErrCutOff, err)
			}
		}
	}
	runtime.KeepAlive(message)
	if errors.Is(err, ErrCutOff) {
		s.cut = err
	}
	if err != nil {
		return fmt.Errorf("send %T with %d descriptors: %w", message, len(descriptors), err)
	}
	return nil
}

// Why sendNow has sent nothing.
var (
	errBusy     = errors.New("cannot be sent at once")
	errInFlight = errors.New("too many descriptors in flight")
)

// sendNow is Send for who must not wait: it fails with errBusy instead, or with errInFlight. It is for sessions whose offers are sent
// together with their tokens.
func (s *Session) sendNow(message Message) error {
	frame, token, descriptors, err := s.encode(message)
	if err != nil {
		return err
	}
	if !s.sending.TryLock() {
		return errBusy
	}
	defer s.sending.Unlock()
	if s.cut != nil {
		return s.cut
	}
	frame = append(frame, token...)
	n, err := scm.SendOnce(s.conn, frame, descriptors)
	runtime.KeepAlive(message)
	switch {
	case n == len(frame):
		return nil
	case n == 0 && (errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOBUFS)): // the BSDs' word for it
		return errBusy
	case n == 0 && errors.Is(err, syscall.ETOOMANYREFS):
		return fmt.Errorf("%w: %w", errInFlight, err)
	case n > 0:
		s.cut = fmt.Errorf("%w: after %d of %d bytes", ErrCutOff, n, len(frame))
		err = errors.Join(s.cut, err)
	}
	return fmt.Errorf("send %T with %d descriptors: %w", message, len(descriptors), err)
}

// encode makes a frame, and for an offer with descriptors what is to be sent with them.
func (s *Session) encode(message Message) (frame, token []byte, descriptors []int, err error) {
	offer, isOffer := message.(*Offer)
	if isOffer {
		if err := offer.check(); err != nil {
			return nil, nil, nil, err
		}
	}
	if frame, err = wire.AppendFrame(nil, message.kind(), message); err != nil || !isOffer || offer.Count == 0 {
		return frame, nil, nil, err
	}
	descriptors, err = offer.descriptors()
	return frame, offer.Token.Expose(), descriptors, err
}

// Receive reads one message. An *Offer owns the descriptors that came with it, after their token was verified and
// consumed. The error is io.EOF when the peer closed between two frames, and the cause of ctx when that ended first.
func (s *Session) Receive(ctx context.Context) (Message, error) {
	// The first byte may take as long as ctx allows: a peer that has nothing to say is not at fault.
	if err := s.stream.await(ctx); err != nil {
		return nil, err
	}
	s.stream.until = time.Time{}
	message, err := s.receive(ctx)
	if err != nil {
		s.stream.close()
		message = nil
	} else if err = s.stream.settle(); err != nil {
		message = nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %w", ErrMalformed, io.ErrUnexpectedEOF)
	}
	return message, err
}

func (s *Session) receive(ctx context.Context) (Message, error) {
	var header [wire.HeaderSize]byte
	if err := s.stream.read(ctx, header[:]); err != nil {
		return nil, err
	}
	kind, length, err := wire.ParseHeader(header, s.body)
	if err != nil {
		return nil, err
	}
	body := make([]byte, length)
	if err := s.stream.read(ctx, body); err != nil {
		return nil, err
	}
	message, err := decodeMessage(kind, body)
	if err != nil {
		return nil, err
	}
	if offer, ok := message.(*Offer); ok && offer.Count > 0 {
		if err := s.receiveDescriptors(ctx, offer); err != nil {
			return nil, fmt.Errorf("descriptors of offer %d: %w", offer.ID, err)
		}
	}
	return message, nil
}

// receiveDescriptors reads the message that an offer announced. Nothing in it reaches the offer before its token was
// consumed.
func (s *Session) receiveDescriptors(ctx context.Context, offer *Offer) error {
	if err := s.announced.Expect(offer.Token); err != nil {
		return err
	}
	defer s.announced.Revoke(offer.Token)
	var presented [TokenSize]byte
	if err := s.stream.read(ctx, presented[:]); err != nil {
		return err
	}
	received, err := s.stream.take(offer.Count)
	if err != nil {
		return err
	}
	defer received.Close()
	if err := s.announced.Redeem(offer.Token, presented[:]); err != nil {
		return err
	}
	next := 0
	for i := range offer.Entries {
		if entry := &offer.Entries[i]; entry.Described {
			entry.Descriptor = scm.NewDescriptor(received.Take(next))
			next++
		}
	}
	return nil
}
