//go:build linux

package restart

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/scm"
)

// commitByScript is a predecessor's side from READY to COMMITTED.
func commitByScript(ctx context.Context, session *handoff.Session) error {
	for {
		message, err := session.Receive(ctx)
		if err != nil {
			return err
		}
		switch message.(type) {
		case *handoff.Ready:
			err = session.Send(ctx, &handoff.Ping{Number: 1})
		case *handoff.Pong:
			err = session.Send(ctx, &handoff.Grant{})
		case *handoff.Commit:
			return session.Send(ctx, &handoff.Committed{})
		default:
			return handoff.Unexpected("READY, PONG or COMMIT", message)
		}
		if err != nil {
			return err
		}
	}
}

// A successor that is stopped while its predecessor moves connections serves those that it has acknowledged, and tells the predecessor
// at once to keep the others.
func TestInvariant3StopWhileConnectionsMove(t *testing.T) {
	g, c := newTwin(t), newConversation(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c.bequeath(ctx, t, g, firstCapabilities, &handoff.Offer{ID: 1})
	ln, err := g.Listen(ctx, "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.HTTP(ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") })})
	successor := runTwin(t, g)
	if err := errors.Join(commitByScript(ctx, c.predecessor), c.predecessor.Send(ctx, &handoff.Grant{})); err != nil {
		t.Fatal(err)
	}

	elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	client, err := net.Dial("tcp", elsewhere.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := elsewhere.Accept()
	if err != nil {
		t.Fatal(err)
	}
	descriptor, err := scm.Duplicate(accepted.(*net.TCPConn))
	_ = accepted.Close()
	if err != nil {
		t.Fatal(err)
	}
	offer := &handoff.Offer{ID: 2, Count: 1, Entries: []handoff.Entry{
		{ID: 1, Kind: kindConnection, Name: "web", Data: []byte{0xa0}, Described: true, Descriptor: descriptor}}}
	defer offer.Close()
	if offer.Token, err = c.tokens.Issue(); err != nil {
		t.Fatal(err)
	}
	if err := offerAll(ctx, c.predecessor, offer); err != nil {
		t.Fatal(err)
	}
	// Its answers are not read, so that it is told to stop while it sends one: the socket has room for some 200.
	for number := range uint64(300) {
		if err := c.predecessor.Send(ctx, &handoff.Ping{Number: 2 + number}); err != nil {
			t.Fatal(err)
		}
	}
	left := make(chan struct{})
	go func() { defer close(left); successor.leave() }()
	<-time.After(50 * time.Millisecond) // nothing tells that it has noticed
	if err := c.predecessor.Send(ctx, &handoff.Grant{Offers: []uint64{2}}); err != nil {
		t.Fatalf("want the GRANT of what was acknowledged to be awaited, have %v", err)
	}
	_ = offer.Close()
	begun := time.Now()
	for {
		message, err := c.predecessor.Receive(ctx)
		if isGone(err) {
			break
		}
		if _, ok := message.(*handoff.Pong); !ok {
			t.Fatalf("want the end of the session, have %T, %v", message, err)
		}
	}
	if took := time.Since(begun); took > ackTimeout/2 {
		t.Errorf("the successor let the predecessor wait for %v", took)
	}
	if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	response, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatalf("want an answer, have %v", err)
	}
	_ = response.Body.Close()
	_ = client.Close() // the answer may have come before the drain began, which announces the end
	<-left
}

// A successor that is told to stop as soon as it is committed tells its predecessor first that it has heard of the commit, which would
// take over again otherwise.
func TestInvariant2StopRightAfterTheCommit(t *testing.T) {
	g, c := newTwin(t), newConversation(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c.bequeathLedger(ctx, t, g)
	successor := runTwin(t, g)
	if err := commitByScript(ctx, c.predecessor); err != nil {
		t.Fatal(err)
	}
	<-successor.Serving()
	left := make(chan struct{})
	go func() { defer close(left); successor.leave() }()
	if err := c.predecessor.Send(ctx, &handoff.Ping{Number: confirmingPing}); err != nil {
		t.Fatal(err)
	}
	message, err := c.predecessor.Receive(ctx)
	if pong, ok := message.(*handoff.Pong); !ok || pong.Number != confirmingPing {
		t.Fatalf("want the answer to the PING, have %v, %v", message, err)
	}
	if err := c.predecessor.Send(ctx, &handoff.Grant{}); err != nil {
		t.Fatal(err)
	}
	if message, err := c.predecessor.Receive(ctx); !isGone(err) {
		t.Fatalf("want the end of the session, have %v, %v", message, err)
	}
	<-left
}

// It does so if it is told to stop between its hearing of a PING and its answer, too.
func TestInvariant2StopBetweenPingAndPong(t *testing.T) {
	g, c := newTwin(t), newConversation(t)
	g.predecessor = &predecessor{session: handoff.NewSession(c.successor)}
	p := &probation{Generation: g, serving: true, adopter: adopter{budget: budget{measure: measureDescriptors}}}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := p.handle(stopped, &handoff.Ping{Number: confirmingPing}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	message, err := c.predecessor.Receive(ctx)
	if pong, ok := message.(*handoff.Pong); !ok || pong.Number != confirmingPing {
		t.Errorf("want the answer to the PING, have %v, %v", message, err)
	}
}
