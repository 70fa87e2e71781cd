//go:build linux || darwin || freebsd

package restart

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/scm"
)

// Two generations in one process, which upgrade over a socketpair: what is between them is as it is between processes.

// loner is a spawner that starts nobody.
type loner struct{}

func (loner) inherited() *inheritance                    { return nil }
func (loner) check() error                               { return nil }
func (loner) spawn(*os.File, *os.File) (*spawned, error) { return nil, errors.ErrUnsupported }
func (loner) sealed()                                    {}
func (loner) ready() error                               { return nil }
func (loner) waitPredecessor(context.Context) error      { return nil }
func (loner) stop()                                      {}

// roommate is a candidate that is this process.
type roommate struct{}

func (roommate) greeted(*handoff.Hello) error { return nil }
func (roommate) pid() int                     { return os.Getpid() }
func (roommate) ended() <-chan struct{}       { return nil }
func (roommate) end() error                   { return nil }
func (roommate) startedHere() bool            { return true }
func (roommate) confirm(context.Context, *handoff.Session, <-chan received, func(handoff.Message) error) error {
	return nil
}
func (roommate) fence(context.Context) error { return nil }
func (roommate) release()                    {}
func lonelyOptions(t *testing.T) Options {
	return Options{
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Probation: -1, UpgradeTimeout: 30 * time.Second,
		PingTimeout:    10 * time.Second, // both sides share one process, which may have to wait for its turn
		UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
	}
}

// testWriter is the test's log, as long as the test runs.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

// newTwin makes a generation that has no predecessor yet.
func newTwin(t *testing.T) *Generation {
	t.Helper()
	options, err := lonelyOptions(t).resolved()
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGeneration(options, loner{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// conversation is the two ends of an upgrade socket with a token for it.
type conversation struct {
	predecessor *handoff.Session
	successor   *net.UnixConn
	tokens      *handoff.TokenStore
	token       handoff.Token
}

func newConversation(t *testing.T) *conversation {
	t.Helper()
	local, remote, err := scm.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	conn, err := net.FileConn(remote)
	if err != nil {
		t.Fatal(err)
	}
	c := &conversation{predecessor: handoff.NewSession(local), successor: conn.(*net.UnixConn), tokens: &handoff.TokenStore{}}
	t.Cleanup(func() {
		_ = c.predecessor.Close()
		_ = c.successor.Close()
	})
	if c.token, err = c.tokens.Issue(); err != nil {
		t.Fatal(err)
	}
	return c
}

// bequeath has g inherit offers from a predecessor that the test goes on to play.
func (c *conversation) bequeath(ctx context.Context, t *testing.T, g *Generation, capabilities []string, offers ...*handoff.Offer) {
	t.Helper()
	scripted := make(chan error, 1)
	go func() {
		_, err := c.predecessor.Receive(ctx)
		if err == nil {
			err = c.predecessor.Send(ctx, &handoff.Welcome{Version: 1, Capabilities: capabilities, Generation: 2, PID: 4711})
		}
		for _, offer := range offers {
			if err == nil && offer.Count > 0 {
				offer.Token, err = c.tokens.Issue()
			}
		}
		if err == nil {
			err = offerAll(ctx, c.predecessor, offers...)
		}
		scripted <- err
	}()
	if err := errors.Join(g.inherit(ctx, c.successor, c.token), <-scripted); err != nil {
		t.Fatal(err)
	}
}

// bequeathLedger has g inherit nothing but a ledger.
func (c *conversation) bequeathLedger(ctx context.Context, t *testing.T, g *Generation) {
	t.Helper()
	escrow, err := newEscrow()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(escrow.close)
	c.bequeath(ctx, t, g, append(firstCapabilities, handoff.CapabilityEscrow), handoff.Offers([]handoff.Entry{escrow.entry()})...)
}

// runner is a generation that runs.
type runner struct {
	*Generation
	leave func() // ends it: it drains what it has, and Run returns
	wait  func() // until Run returns
}

// runTwin has a generation run until it is told to leave, at the end of the test at the latest.
func runTwin(t *testing.T, g *Generation) *runner {
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- g.Run(ctx) }()
	wait := sync.OnceFunc(func() {
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	leave := func() { cancel(); wait() }
	t.Cleanup(leave)
	return &runner{g, leave, wait}
}

// runFirst runs a first generation.
func runFirst(t *testing.T, g *Generation) *runner {
	t.Helper()
	first := runTwin(t, g)
	<-first.committed
	return first
}

// upgrade makes a successor of a generation. Claim is what it does between New and Run.
func (predecessor *runner) upgrade(t *testing.T, claim func(*Generation)) *runner {
	t.Helper()
	c, next := newConversation(t), newTwin(t)
	done := make(chan error, 1)
	go func() {
		report := predecessor.recorded(func(r *record) error {
			a := &attempt{Generation: predecessor.Generation, record: r, session: c.predecessor, candidate: roommate{}, hello: 30 * time.Second}
			return a.run(context.Background(), c.tokens, c.token)
		})
		done <- report.Err
	}()
	if err := next.inherit(t.Context(), c.successor, c.token); err != nil {
		t.Fatal(err)
	}
	claim(next)
	successor := runTwin(t, next)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	<-next.committed
	return successor
}

// awaitPredecessor returns when the successor knows that there is no other generation any more.
func (successor *runner) awaitPredecessor(t *testing.T) {
	t.Helper()
	select {
	case <-successor.predecessor.gone:
	case <-time.After(30 * time.Second):
		t.Fatal("the successor did not hear that its predecessor has gone")
	}
}

// inheritFromScript has a new generation inherit from a predecessor that does as it is told once it has welcomed it.
func inheritFromScript(t *testing.T, g *Generation, capabilities []string, script func(ctx context.Context, session *handoff.Session) error) (inherited, scripted error) {
	t.Helper()
	c := newConversation(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := c.predecessor.Receive(ctx)
		if err == nil {
			err = c.predecessor.Send(ctx, &handoff.Welcome{Version: 1, Capabilities: capabilities, Generation: 2, PID: 4711})
		}
		if err == nil {
			err = script(ctx, c.predecessor)
		}
		done <- err
	}()
	inherited = g.inherit(t.Context(), c.successor, c.token)
	return inherited, <-done
}

// offerAll sends offers and returns the first answer that is no ACK, as an error.
func offerAll(ctx context.Context, session *handoff.Session, offers ...*handoff.Offer) error {
	for _, offer := range offers {
		if err := session.Send(ctx, offer); err != nil {
			return err
		}
		message, err := session.Receive(ctx)
		if err != nil {
			return err
		}
		ack, ok := message.(*handoff.Ack)
		if !ok {
			return refusal("ACK", message)
		}
		if err := ack.Check(offer); err != nil {
			return err
		}
	}
	return nil
}

var firstCapabilities = []string{
	handoff.CapabilityListeners, handoff.CapabilityPackets, handoff.CapabilityFiles, handoff.CapabilityState, handoff.CapabilityConnections,
}
