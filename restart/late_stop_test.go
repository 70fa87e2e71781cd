//go:build linux

package restart

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
)

// A stop signal that comes when the successor has just been committed, and the PID file does not name it yet, ends both. What was on its way then stays here, and is drained.
func TestInvariant3StopRightAfterTheCommit(t *testing.T) {
	g, c := newTwin(t), newConversation(t)
	g.pidFile.path = filepath.Join(t.TempDir(), "pid")
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
	predecessor.stop <- syscall.SIGTERM
	left := make(chan struct{})
	go func() { defer close(left); predecessor.wait() }()
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

// A stop signal that is for this process alone does not end the successor.
func TestInvariant2StopOfTheOldProcessIsNotPassedOn(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		name        string
		pidFile     string
		startedHere bool
		passedOn    bool
	}{
		{"the PID file names the old process", own, true, true},
		{"the PID file names the new process", "1", true, false},
		{"there is no PID file", "", true, false},
		{"the PID file names the old process, and something else started the new one", own, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, c := newTwin(t), newConversation(t)
			g.pidFile.path = filepath.Join(t.TempDir(), "pid")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			predecessor := runFirst(t, g)
			if err := errors.Join(os.Remove(g.pidFile.path), os.WriteFile(g.pidFile.path, []byte(test.pidFile), 0o600)); err != nil {
				t.Fatal(err)
			}
			// The successor is committed when the signal comes.
			predecessor.successor = &successor{session: c.predecessor, stopReading: func() {}, startedHere: test.startedHere}
			predecessor.record = newRecord(1)
			predecessor.stop <- syscall.SIGTERM
			message, err := handoff.NewSession(c.successor).Receive(ctx)
			if bye, ok := message.(*handoff.Bye); !ok || bye.Stop != test.passedOn {
				t.Errorf("want BYE, passed on %v, have %+v, %v", test.passedOn, message, err)
			}
			predecessor.wait()
		})
	}
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
