package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/segue-go/segue/internal/scm"
)

// DefaultCredit is how many connections a Backend without Credit has room for: always more.
const DefaultCredit = 1024

const (
	// answerTimeout is how long a front may take to read an answer, and greetTimeout how long to say what it is.
	answerTimeout = time.Second
	greetTimeout  = 5 * time.Second
)

// Backend adopts connections that fronts hand over. Set the fields before the first call. Safe for concurrent use.
type Backend struct {
	// Adopt prepares to serve a client's connection, and owns client.Conn if it returns no error. It must not read or write it yet: it is not
	// this process's before its ack is sent. Then serve is called, once, with true; with false, if the front was gone, or had lost patience:
	// it is the front's then, and is to be closed without a word (no shutdown(2), which would reach the front's own).
	//
	// An error refuses the connection. What it is matters: a *RefusedError has its Reason, ErrDescriptorPressure is one that passes. Both
	// functions are called on the goroutine that reads the front's offers, and must not block.
	Adopt func(client *Client) (serve func(owned bool), err error)
	// Service is the one that offers have to be for; empty means any.
	Service string
	// Credit tells for how many more connections there is room; nil means DefaultCredit.
	Credit func() int
	// AllowUIDs are effective uids that a front may have besides this process's.
	AllowUIDs []int
	// Bare, if not nil, has fronts speak the bare form, and verifies the token as it came: see ReceiveBare. There is no ack, so serve is called at
	// once, and what Adopt refuses, or whose client has hung up, is closed. An error of Bare ends the session, with what is behind it.
	Bare func(presented []byte) error
}

// ServeConn serves one front over conn, which it owns: a connected Unix socket, or what wraps one and returns it from NetConn. It returns nil when
// the front has closed it, or ctx has ended. In the latter case the front learns that no more offers are taken, and tries the
// connections that were not acknowledged elsewhere; in the bare form, it cannot send more, and what it has sent by then is served first. (Platforms other
// than Linux cannot keep the one and refuse the other: there, what is sent just then may be lost.)
//
// The error is of ErrPermission for a process of another user, or of Session.Receive for one that breaks the protocol.
func (b *Backend) ServeConn(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	unix, err := unixConn(conn)
	if err == nil {
		err = admissible(unix, b.AllowUIDs)
	}
	if err != nil {
		return fmt.Errorf("front: %w", err)
	}
	if b.Bare != nil {
		err = b.serveBare(ctx, unix)
	} else {
		err = b.serve(ctx, NewSession(unix))
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("front: %w", err)
}

func unixConn(conn net.Conn) (*net.UnixConn, error) {
	inner := conn
	if wrapper, ok := conn.(interface{ NetConn() net.Conn }); ok {
		inner = wrapper.NetConn()
	}
	unix, ok := inner.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%w: a %T, want a *net.UnixConn", ErrUnsupported, inner)
	}
	return unix, nil
}

// serve answers the offers of one session.
func (b *Backend) serve(ctx context.Context, s *Session) error {
	defer s.Close() // and descriptors that were read ahead
	s.broker()
	greeting, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), greetTimeout, ErrFrameTimeout)
	defer cancel()
	// Who comes while this side leaves is welcomed all the same, to be told so: a mere end would be taken for a failure.
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(answerTimeout, cancel) })
	defer stop()
	answer := Welcome{Limits: Limits{Credit: b.credit()}}
	if ctx.Err() != nil {
		answer.Limits.Credit = 0
	}
	if _, err := s.welcome(greeting, answer, func(Token) error { return nil }); err != nil {
		return err
	}
	for {
		message, err := s.Receive(ctx)
		if ctx.Err() != nil {
			if offer, ok := message.(*Offer); ok {
				_ = offer.Close() // not acknowledged: it comes to the next one
			}
			return b.send(s, &Bye{})
		}
		if err != nil {
			return err
		}
		switch message := message.(type) {
		case *Offer:
			err = b.consider(s, message)
		case *Ping:
			err = b.send(s, &Pong{Number: message.Number, Credit: b.credit()})
		default:
			err = Unexpected("OFFER or PING", message)
		}
		if err != nil {
			return err
		}
	}
}

func (b *Backend) credit() uint32 {
	if b.Credit == nil {
		return DefaultCredit
	}
	return uint32(max(b.Credit(), 0))
}

func (b *Backend) send(s *Session, message Message) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), answerTimeout, ErrWouldBlock)
	defer cancel()
	return s.Send(ctx, message)
}

// consider answers one offer. Once the ack is in the front's queue the connection is this side's.
func (b *Backend) consider(s *Session, offer *Offer) error {
	defer offer.Close()
	if len(offer.Entries) != 1 || offer.Count != 1 || offer.Entries[0].Kind != kindConnection {
		return fmt.Errorf("%w: %d entries with %d descriptors, want one connection", ErrOffer, len(offer.Entries), offer.Count)
	}
	entry := &offer.Entries[0]
	client, serve, err := b.adopt(entry.Descriptor, entry.Name, offer.Correlation)
	ack := &Ack{Offer: offer.ID, Results: []Result{{ID: entry.ID, Accepted: err == nil}}, Token: offer.Token, Correlation: offer.Correlation}
	if err != nil {
		ack.Results[0].Reason, ack.Results[0].Detail = refusalReason(err), err.Error()
	}
	ack.Credit = b.credit()
	failed := b.send(s, ack)
	if err != nil {
		return failed
	}
	if failed == nil && offer.Relay {
		_ = client.tell(&Relay{Token: offer.Token, Backend: true, Correlation: offer.Correlation}) // if it has gone, its server finds out
	}
	serve(failed == nil)
	return failed
}

func refusalReason(err error) Reason {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return ReasonFor(err)
}

// adopt prepares to serve what came.
func (b *Backend) adopt(descriptor *scm.Descriptor, service string, correlation uint64) (*Client, func(owned bool), error) {
	if b.Service != "" && service != b.Service {
		return nil, nil, &RefusedError{Sentinel: ErrRefused, Reason: ReasonService, Detail: fmt.Sprintf("%.64q, want %q", service, b.Service)}
	}
	conn, err := descriptor.Conn()
	if err != nil || conn.RemoteAddr() == nil {
		if err == nil {
			_ = conn.Close()
		}
		return nil, nil, &RefusedError{Sentinel: ErrRefused, Reason: ReasonIdentity, Detail: "not a connected socket"}
	}
	client := &Client{Conn: conn, Service: service, Correlation: correlation}
	serve, err := b.Adopt(client)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return client, serve, nil
}

// serveBare takes what comes in the bare form. Its sender knows only that the kernel has taken it, so nothing that concerns one connection, nor the
// end of ctx, may cost those behind it.
func (b *Backend) serveBare(ctx context.Context, conn *net.UnixConn) error {
	receiver := scm.NewReceiver(conn)
	err := b.takeBare(func(p []byte) (int, *scm.Descriptors, error) { return receiver.Some(ctx, time.Time{}, nil, p) })
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	// What is there now is still served. A front that goes on sending must not hold this.
	rest := context.Background()
	if fenceKeeps {
		_ = conn.CloseRead()
	} else {
		var cancel context.CancelFunc
		rest, cancel = context.WithTimeout(rest, answerTimeout)
		defer cancel()
	}
	atOnce := time.Unix(1, 0)
	return b.takeBare(func(p []byte) (int, *scm.Descriptors, error) { return receiver.Some(rest, atOnce, io.EOF, p) })
}

// takeBare serves connections until it cannot receive one.
func (b *Backend) takeBare(receive bareMessage) error {
	for {
		descriptor, err := receiveBare(receive, b.Bare)
		if err != nil {
			return err
		}
		// There is nobody to be told of an error: Adopt knows what it has refused, and else the client has hung up.
		if _, serve, err := b.adopt(descriptor, b.Service, 0); err == nil {
			serve(true)
		}
	}
}
