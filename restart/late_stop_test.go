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
)

// A stop signal that comes when the successor has just been committed ends both. What was on its way then stays here, and is drained.
func TestInvariant3StopRightAfterTheCommit(t *testing.T) {
	g, c := newTwin(t), newConversation(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ln, err := g.Listen(ctx, "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.HTTP(ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") })})
	predecessor := runFirst(t, g)
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	answers := bufio.NewReader(client)
	ask := func() *http.Response {
		t.Helper()
		if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("want an answer, have %v", err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		return response
	}
	ask()

	successor := handoff.NewSession(c.successor)
	offered := make(chan *handoff.Offer, 1)
	scripted := make(chan error, 1)
	go func() { scripted <- takeConnection(ctx, successor, c.token, offered) }()
	report := predecessor.recorded(func(r *record) error {
		a := &attempt{Generation: predecessor.Generation, record: r, session: c.predecessor, candidate: roommate{}, hello: 30 * time.Second}
		return a.run(ctx, c.tokens, c.token)
	})
	if err := errors.Join(report.Err, <-scripted); err != nil {
		t.Fatal(err)
	}
	offer := <-offered
	defer offer.Close()
	if err := successor.Send(ctx, &handoff.Ack{Offer: offer.ID, Results: []handoff.Result{{ID: 1, Accepted: true}}}); err != nil {
		t.Fatal(err)
	}
	predecessor.stopping.Store(true)
	left := make(chan struct{})
	go func() { defer close(left); predecessor.leave() }()
	for stopped := false; ; {
		message, err := successor.Receive(ctx)
		if isGone(err) {
			if !stopped {
				t.Error("the successor was not told to stop")
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch message := message.(type) {
		case *handoff.Grant:
			if len(message.Offers) > 0 {
				t.Error("the successor was granted a connection when it was told to stop")
			}
		case *handoff.Bye:
			if stopped = stopped || message.Stop; message.Stop {
				_ = offer.Close()
				if response := ask(); !response.Close {
					t.Error("want the end of the connection announced")
				}
			}
		}
	}
	<-left
}

// takeConnection is a successor's side from HELLO to COMMITTED, which is offered a connection meanwhile.
func takeConnection(ctx context.Context, session *handoff.Session, token handoff.Token, offered chan<- *handoff.Offer) error {
	if _, err := session.Connect(ctx, token); err != nil {
		return err
	}
	message, err := session.Receive(ctx)
	if err != nil {
		return err
	}
	offer, ok := message.(*handoff.Offer)
	if !ok {
		return handoff.Unexpected("OFFER", message)
	}
	ack := &handoff.Ack{Offer: offer.ID}
	for _, entry := range offer.Entries {
		ack.Results = append(ack.Results, handoff.Result{ID: entry.ID, Accepted: true})
	}
	if err := errors.Join(offer.Close(), session.Send(ctx, ack), session.Send(ctx, &handoff.Ready{Credit: 100})); err != nil {
		return err
	}
	for {
		message, err := session.Receive(ctx)
		if err != nil {
			return err
		}
		switch message := message.(type) {
		case *handoff.Ping:
			err = session.Send(ctx, &handoff.Pong{Number: message.Number, Credit: 100})
		case *handoff.Offer:
			offered <- message
			err = session.Send(ctx, &handoff.Commit{})
		case *handoff.Committed:
			return nil
		}
		if err != nil {
			return err
		}
	}
}
