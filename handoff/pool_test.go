//go:build linux || darwin || freebsd

package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// client returns the two ends of a client's connection: that which is handed over, and the client's own.
func client(t *testing.T) (*Client, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	own, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close(); conn.Close() })
	return &Client{Conn: conn, Service: "web", Correlation: 4711}, own
}

// peer is the backend's end of a Pool's socket, played by the test.
type peer struct {
	t *testing.T
	*Session
}

// poolOf returns a Pool for a backend that the test plays.
func poolOf(t *testing.T, pool *Pool) (greet func(credit uint32) peer) {
	t.Helper()
	listener, path := listen(t)
	pool.Path = path
	if pool.Wait == 0 {
		pool.Wait = time.Minute // the machine may be busy
	}
	t.Cleanup(func() {
		listener.Close()
		pool.Close()
	})
	return func(credit uint32) peer {
		t.Helper()
		s := NewSession(accept(t, listener))
		s.broker()
		if _, err := s.welcome(bounded(t), Welcome{Limits: Limits{Credit: credit}}, func(Token) error { return nil }); err != nil {
			t.Fatal(err)
		}
		return peer{t, s}
	}
}

func (p peer) offer() *Offer {
	p.t.Helper()
	message, err := p.Receive(bounded(p.t))
	if err != nil {
		p.t.Fatal(err)
	}
	offer, ok := message.(*Offer)
	if !ok {
		p.t.Fatalf("want an OFFER, have %+v", message)
	}
	p.t.Cleanup(func() { offer.Close() })
	return offer
}

// accepted makes the answer that accepts an offer.
func accepted(offer *Offer, credit uint32) *Ack {
	return &Ack{Offer: offer.ID, Results: []Result{{ID: 1, Accepted: true}}, Credit: credit, Token: offer.Token, Correlation: offer.Correlation}
}

func (p peer) say(message Message) {
	p.t.Helper()
	if err := p.Send(bounded(p.t), message); err != nil {
		p.t.Fatal(err)
	}
}

// begin hands a connection over, and returns where its fate will be told.
func begin(t *testing.T, pool *Pool) chan error {
	t.Helper()
	c, _ := client(t)
	fate := make(chan error, 1)
	pool.Offer(c, func(err error) { fate <- err })
	return fate
}

func fate(t *testing.T, of chan error) error {
	t.Helper()
	select {
	case err := <-of:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("no fate")
		return nil
	}
}

func undecided(t *testing.T, of chan error) {
	t.Helper()
	select {
	case err := <-of:
		t.Errorf("want no fate yet, have %v", err)
	default:
	}
}

func TestPoolTakesAcksInAnyOrder(t *testing.T) {
	pool := &Pool{}
	greet := poolOf(t, pool)
	const n = 10
	var fates []chan error
	for range n {
		fates = append(fates, begin(t, pool))
	}
	backend := greet(100)
	var offers []*Offer
	for range n {
		offers = append(offers, backend.offer())
	}
	for i, offer := range slices.Backward(offers) {
		if offer.Entries[0].Name != "web" || offer.Correlation != 4711 || offer.Entries[0].Descriptor.FD() < 0 {
			t.Errorf("offer %d: %+v", i, offer)
		}
		undecided(t, fates[0])
		ack := accepted(offer, 100)
		if i == 5 {
			ack.Results[0] = Result{ID: 1, Reason: ReasonService, Detail: "no such thing"}
		}
		backend.say(ack)
	}
	for i, of := range fates {
		err := fate(t, of)
		var refused *RefusedError
		switch {
		case i == 5 && (!errors.As(err, &refused) || refused.Reason != ReasonService || FallbackFor(err) != FallbackPolicyDisabled):
			t.Errorf("refused: want a RefusedError for %q, have %v", ReasonService, err)
		case i != 5 && err != nil:
			t.Errorf("connection %d: %v", i, err)
		}
	}
	if pending := pool.tokens.Pending(); pending != 0 {
		t.Errorf("tokens pending: want 0, have %d", pending)
	}
}

// What there is no credit for waits, in order; what finds no place in the queue does not.
func TestPoolKeepsToTheCredit(t *testing.T) {
	pool := &Pool{Waiting: 2, Wait: time.Minute}
	greet := poolOf(t, pool)
	first := begin(t, pool)
	backend := greet(1)
	offer := backend.offer()
	second, third, fourth := begin(t, pool), begin(t, pool), begin(t, pool)
	if err := fate(t, fourth); !errors.Is(err, ErrDescriptorPressure) || FallbackFor(err) != FallbackDescriptorPressure {
		t.Errorf("want ErrDescriptorPressure, have %v", err)
	}
	for _, of := range []chan error{first, second} {
		undecided(t, of)
		backend.say(accepted(offer, 1))
		if err := fate(t, of); err != nil {
			t.Error(err)
		}
		offer = backend.offer() // and not before
	}
	backend.say(accepted(offer, 0)) // no room is left
	if err := fate(t, third); err != nil {
		t.Error(err)
	}
	fifth := begin(t, pool)
	message, err := backend.Receive(bounded(t)) // it asks
	ping, ok := message.(*Ping)
	if !ok {
		t.Fatalf("want a PING, have %+v, %v", message, err)
	}
	backend.say(&Pong{Number: ping.Number, Credit: 1})
	backend.say(accepted(backend.offer(), 1))
	if err := fate(t, fifth); err != nil {
		t.Error(err)
	}
}

func TestPoolSendsAwayWhatWaitsTooLong(t *testing.T) {
	pool := &Pool{Wait: 10 * time.Millisecond}
	greet := poolOf(t, pool)
	first := begin(t, pool)
	second := begin(t, pool) // both wait for the socket, or for a place
	_ = greet(0)
	for _, of := range []chan error{first, second} {
		if err := fate(t, of); !errors.Is(err, ErrWouldBlock) {
			t.Errorf("want ErrWouldBlock, have %v", err)
		}
	}
}

// Invariant 1: an ack that this side does not count is one that the backend cannot send, and so it knows that it does not own the connection.
func TestInvariant1AfterTheDeadlineNoAckCanBeSent(t *testing.T) {
	pool := &Pool{Deadline: 50 * time.Millisecond}
	greet := poolOf(t, pool)
	first, second := begin(t, pool), begin(t, pool)
	backend := greet(10)
	offers := []*Offer{backend.offer(), backend.offer()}
	for _, of := range []chan error{first, second} {
		err := fate(t, of)
		if !errors.Is(err, ErrAckTimeout) || FallbackFor(err) != FallbackAckTimeout || Reached(err) != !fenceKeeps {
			t.Errorf("want ErrAckTimeout, have %v", err)
		}
	}
	for _, offer := range offers {
		if err := backend.Send(bounded(t), accepted(offer, 10)); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("late ack: want EPIPE, have %v", err)
		}
	}
	if pending := pool.tokens.Pending(); pending != 0 {
		t.Errorf("tokens pending: want 0, have %d", pending)
	}
}

// Invariant 1: what the backend has acknowledged before its end is its own, what it has not is the front's, however it ends.
func TestInvariant1EndOfABackend(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(backend peer, unanswered *Offer)
		want error
	}{
		{"closes", func(peer, *Offer) {}, ErrUnavailable},
		{"closes in the middle of an ack", func(backend peer, offer *Offer) {
			frame, _, _, err := backend.encode(accepted(offer, 10))
			if err != nil {
				t.Fatal(err)
			}
			sendBytes(backend.t, backend.conn, frame[:len(frame)-1])
		}, ErrUnavailable},
		{"wrong token", func(backend peer, offer *Offer) {
			ack := accepted(offer, 10)
			ack.Token = parse(backend.t, []byte("fedcba9876543210"))
			backend.say(ack)
		}, ErrTokenMismatch},
		{"no token", func(backend peer, offer *Offer) {
			ack := accepted(offer, 10)
			ack.Token = Token{}
			backend.say(ack)
		}, ErrTokenMissing},
		{"another's correlation", func(backend peer, offer *Offer) {
			ack := accepted(offer, 10)
			ack.Correlation++
			backend.say(ack)
		}, ErrAck},
		{"no result", func(backend peer, offer *Offer) {
			ack := accepted(offer, 10)
			ack.Results = nil
			backend.say(ack)
		}, ErrAck},
		{"ack of nothing", func(backend peer, offer *Offer) {
			ack := accepted(offer, 10)
			ack.Offer = 99
			backend.say(ack)
		}, ErrAck},
		{"message out of place", func(backend peer, offer *Offer) { backend.say(&Commit{}) }, ErrUnexpectedMessage},
		{"no frame", func(backend peer, offer *Offer) {
			sendBytes(backend.t, backend.conn, []byte("HTTP/1.1 400 Bad Request\r\n"))
		}, ErrTooLarge},
		{"descriptor from the wrong side", func(backend peer, offer *Offer) {
			sendBytes(backend.t, backend.conn, []byte{0, 0, 0, 1, kindBye, 0xa0}, int(syscall.Stdin))
		}, ErrDescriptorCount},
	} {
		t.Run(test.name, func(t *testing.T) {
			policy := &Policy{Failures: 1}
			pool := &Pool{Policy: policy}
			greet := poolOf(t, pool)
			first, second := begin(t, pool), begin(t, pool)
			backend := greet(10)
			answered, unanswered := backend.offer(), backend.offer()
			backend.say(accepted(answered, 10))
			backend.t = t
			test.end(backend, unanswered)
			backend.Close()
			if err := fate(t, first); err != nil {
				t.Errorf("acknowledged: %v", err)
			}
			err := fate(t, second)
			if !errors.Is(err, test.want) || !FallbackFor(err).SafeToHide() {
				t.Errorf("want %v, have %v", test.want, err)
			}
			if decision := policy.Decide(pool.Path, Conditions{}); decision.Fallback != FallbackRateLimited {
				t.Errorf("want the failure to count, have %+v", decision)
			}
		})
	}
}

// A backend that leaves gives back what it has not answered, and the next one at its socket gets it.
func TestPoolGoesOnWithTheNextOfABackendThatLeaves(t *testing.T) {
	pool := &Pool{Wait: time.Minute}
	greet := poolOf(t, pool)
	var fates []chan error
	for range 3 {
		fates = append(fates, begin(t, pool))
	}
	leaving := greet(10)
	leaving.say(accepted(leaving.offer(), 10))
	refused := leaving.offer()
	leaving.say(&Ack{Offer: refused.ID, Results: []Result{{ID: 1, Reason: ReasonStopped}}, Token: refused.Token, Correlation: refused.Correlation})
	_ = leaving.Send(bounded(t), &Bye{}) // it has perhaps been understood already
	leaving.Close()                      // with an offer that it has not read
	next := greet(10)
	for range 2 {
		next.say(accepted(next.offer(), 10))
	}
	for i, of := range fates {
		if err := fate(t, of); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

// A backend that is not there costs nobody time, and is found when it is there again.
func TestPoolRedials(t *testing.T) {
	listener, path := listen(t)
	listener.Close()
	pool := &Pool{Path: path, Wait: time.Minute}
	t.Cleanup(func() { pool.Close() })
	for range 20 { // it is no reason to stop attempts, either
		if err := fate(t, begin(t, pool)); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("want ErrUnavailable, have %v", err)
		}
	}
	again, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	backend := &Backend{Adopt: func(c *Client) (func(bool), error) { return func(bool) { c.Conn.Close() }, nil }}
	conn := accept(t, again)
	ctx, leave := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- backend.ServeConn(ctx, conn) }()
	for late := time.Now().Add(20 * time.Second); ; {
		err := fate(t, begin(t, pool))
		if err == nil {
			break
		}
		if !errors.Is(err, ErrUnavailable) || time.Now().After(late) {
			t.Fatal(err)
		}
	}
	leave()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestPoolAfterClose(t *testing.T) {
	pool := &Pool{}
	greet := poolOf(t, pool)
	first := begin(t, pool)
	backend := greet(1)
	offer := backend.offer()
	second := begin(t, pool)
	closed := make(chan error, 1)
	go func() { closed <- pool.Close() }()
	if err := fate(t, second); !errors.Is(err, net.ErrClosed) { // it waited for a place
		t.Errorf("want net.ErrClosed, have %v", err)
	}
	backend.say(accepted(offer, 1))
	if err := fate(t, first); err != nil {
		t.Errorf("under way: %v", err)
	}
	if err := fate(t, closed); err != nil {
		t.Error(err)
	}
	if err := fate(t, begin(t, pool)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("want net.ErrClosed, have %v", err)
	}
	if _, err := backend.Receive(bounded(t)); !errors.Is(err, io.EOF) {
		t.Errorf("backend: want EOF, have %v", err)
	}
}

func TestPoolDoesNotOfferWhatItCannot(t *testing.T) {
	pool := &Pool{}
	greet := poolOf(t, pool)
	one, _ := net.Pipe()
	ended, _ := client(t)
	ended.Conn.Close()
	long, _ := client(t)
	long.Service = string(make([]byte, MaxName+1))
	unsupported, _ := client(t)
	unsupported.Conditions.ClientUnsupported = true
	var backend sync.WaitGroup
	backend.Go(func() { _ = greet(10) })
	for _, test := range []struct {
		name   string
		client *Client
		want   error
	}{
		{"no descriptor", &Client{Conn: one}, ErrUnsupported},
		{"closed", ended, ErrSendFailed},
		{"long name", long, ErrOffer},
		{"declined", unsupported, ErrPolicy},
	} {
		if err := pool.HandOver(test.client); !errors.Is(err, test.want) || Reached(err) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, err)
		}
	}
	backend.Wait()
}

// Many connections at once through a real backend: none is lost or served twice, and nothing stays behind.
func TestPoolAndBackendAtFullLoad(t *testing.T) {
	listener, path := listen(t)
	backend := &Backend{Service: "web", Credit: func() int { return 7 }, Adopt: func(c *Client) (func(bool), error) {
		return func(owned bool) {
			if owned {
				fmt.Fprintf(c.Conn, "%d", c.Correlation)
			}
			c.Conn.Close()
		}, nil
	}}
	ctx, leave := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		conn := accept(t, listener)
		if err := backend.ServeConn(ctx, conn); err != nil {
			t.Error(err)
		}
	})
	pool := &Pool{Path: path, Waiting: 1000, Wait: time.Minute}
	var clients sync.WaitGroup
	for i := range 300 {
		c, own := client(t)
		c.Correlation = uint64(i)
		clients.Go(func() {
			if err := pool.HandOver(c); err != nil {
				t.Error(err)
			}
			c.Conn.Close()
			if have, err := io.ReadAll(own); err != nil || string(have) != fmt.Sprint(i) {
				t.Errorf("want %d, have %q, %v", i, have, err)
			}
		})
	}
	clients.Wait()
	pool.Close()
	serving.Wait()
	leave()
}

// More is offered than the socket has room for: whoever offers does not wait, and nothing is lost, whether the backend reads it after all or never.
func TestPoolOffersToABackendThatReadsSlowly(t *testing.T) {
	const n = 600
	for _, reads := range []bool{true, false} {
		t.Run(fmt.Sprintf("reads=%v", reads), func(t *testing.T) {
			pool := &Pool{Window: n, Waiting: 2 * n}
			if !reads {
				pool.Deadline = 200 * time.Millisecond
			}
			greet := poolOf(t, pool)
			first := begin(t, pool)
			backend := greet(n)
			if reads {
				backend.say(accepted(backend.offer(), n))
				if err := fate(t, first); err != nil {
					t.Fatal(err)
				}
			}
			c, _ := client(t)
			fates := make(chan error, n)
			for i := range n {
				// One and the same connection: who has it does not matter here, only what becomes of the offers.
				pool.Offer(&Client{Conn: c.Conn, Service: "web", Correlation: uint64(i)}, func(err error) { fates <- err })
			}
			for range n {
				if reads {
					backend.say(accepted(backend.offer(), n))
				}
				if err := fate(t, fates); (err == nil) != reads || err != nil && !FallbackFor(err).SafeToHide() {
					t.Fatalf("want it acknowledged: %v, have %v", reads, err)
				}
			}
		})
	}
}
