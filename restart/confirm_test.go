//go:build linux

package restart

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
)

// askedServer is a first generation that runs, with a client that has one connection to it.
type askedServer struct {
	*runner
	client  net.Conn
	answers *bufio.Reader
}

func runAskedServer(t *testing.T) *askedServer {
	t.Helper()
	g := newTwin(t)
	ln, err := g.Listen(t.Context(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.HTTP(ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") })})
	s := &askedServer{runner: runFirst(t, g)}
	s.connect(t, ln.Addr())
	if err := s.ask(); err != nil {
		t.Fatal(err)
	}
	return s
}

// connect has the client use a new connection.
func (s *askedServer) connect(t *testing.T, to net.Addr) {
	t.Helper()
	client, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	_ = client.SetDeadline(time.Now().Add(30 * time.Second))
	s.client, s.answers = client, bufio.NewReader(client)
}

// ask sends a request on the client's connection and reads the answer.
func (s *askedServer) ask() error {
	if _, err := io.WriteString(s.client, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		return err
	}
	response, err := http.ReadResponse(s.answers, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}

// lodger is an offspring that is this process: nobody can kill it, and it never calls Ready.
type lodger struct{ *offspring }

func (lodger) greeted(*handoff.Hello) error { return nil }
func (lodger) fence(context.Context) error  { return nil }
func (lodger) release()                     {}

func newOffspring() *offspring { return &offspring{spawned: &spawned{done: make(chan struct{})}} }

// A successor that is stopped between its COMMIT and its hearing of COMMITTED says ROLLBACK, accepts no more, and drains. Its predecessor
// takes over as soon as it hears of that, and not when the commit is not confirmed for long.
func TestInvariant2RollbackInsteadOfTheConfirmation(t *testing.T) {
	s, c := runAskedServer(t), newConversation(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	successor := handoff.NewSession(c.successor)
	offered := make(chan *handoff.Offer, 1)
	scripted := make(chan error, 1)
	go func() {
		err := takeConnection(ctx, successor, c.token, offered)
		if err == nil {
			err = successor.Send(ctx, &handoff.Rollback{Reason: handoff.ReasonStopped})
		}
		scripted <- err
	}()
	report := s.recorded(func(r *record) error {
		a := &attempt{Generation: s.Generation, record: r, session: c.predecessor, candidate: lodger{newOffspring()}, hello: 30 * time.Second}
		return a.run(ctx, c.tokens, c.token)
	})
	if err := <-scripted; err != nil {
		t.Fatal(err)
	}
	_ = (<-offered).Close()
	if err := report.Err; !errors.Is(err, ErrRolledBack) || !errors.Is(err, handoff.ErrRolledBack) || errors.Is(err, ErrUpgradeTimeout) {
		t.Errorf("want the successor's ROLLBACK, have %v", err)
	}
	if err := s.ask(); err != nil {
		t.Errorf("want the connection served on, have %v", err)
	}
	s.connect(t, s.client.RemoteAddr())
	if err := s.ask(); err != nil {
		t.Errorf("want connections accepted again, have %v", err)
	}
}

// What else a successor says meanwhile is heard, and its call of tableflip's Ready has the last word.
func TestWhatIsSaidInsteadOfTheConfirmation(t *testing.T) {
	type said []received
	var (
		pong     = received{message: &handoff.Pong{Number: 1}}
		ack      = received{message: &handoff.Ack{Offer: 1}}
		closing  = received{message: &handoff.Ack{Offer: 2}} // which cannot be answered any more
		rollback = received{message: &handoff.Rollback{Reason: handoff.ReasonStopped}}
		nonsense = received{message: &handoff.Ready{}}
		ended    = received{err: fmt.Errorf("receive: %w", io.EOF)}
		garbled  = received{err: handoff.ErrMalformed}
	)
	unready := errors.New("not told") // tableflip is still waiting
	for _, test := range []struct {
		name string
		said said
		told error // what tableflip tells after that
		want error
	}{
		{"nothing", said{}, nil, nil},
		{"death", said{}, ErrSuccessorExited, ErrSuccessorExited},
		{"answers", said{pong, ack, pong, ack}, nil, nil},
		{"answers, then ROLLBACK", said{pong, ack, rollback}, unready, handoff.ErrRolledBack},
		{"ROLLBACK behind what cannot be answered", said{closing, rollback}, unready, handoff.ErrRolledBack},
		{"nonsense", said{nonsense}, unready, handoff.ErrUnexpectedMessage},
		{"what cannot be read", said{garbled}, unready, handoff.ErrMalformed},
		{"ready, then the end of the session", said{ended}, nil, nil},
		{"death, then the end of the session", said{ended}, ErrSuccessorExited, ErrSuccessorExited},
		{"only the end of the session", said{pong, ended}, unready, io.EOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			o, incoming, acks := newOffspring(), make(chan received), 0
			confirmed := make(chan error, 1)
			go func() {
				confirmed <- o.confirm(ctx, nil, incoming, func(message handoff.Message) error {
					ack, ok := message.(*handoff.Ack)
					if !ok {
						return refusal("ACK", message)
					}
					if ack.Offer == 2 {
						return syscall.EPIPE
					}
					acks++
					return nil
				})
			}()
			want := 0
			for _, said := range test.said {
				if said == ack {
					want++
				}
				select {
				case incoming <- said:
				case err := <-confirmed:
					t.Fatalf("returned before it had heard everything: %v", err)
				case <-ctx.Done():
					t.Fatalf("%T, %v was not heard", said.message, said.err)
				}
			}
			if test.told != unready {
				o.spawned.err = test.told
				close(o.spawned.done)
			}
			if err := <-confirmed; !errors.Is(err, test.want) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("want %v, have %v", test.want, err)
			}
			if acks != want {
				t.Errorf("want %d ACKs passed on, have %d", want, acks)
			}
		})
	}
}

// A successor that tableflip knows to be ready is the one that serves, whatever it says then.
func TestNothingUndoesAConfirmation(t *testing.T) {
	for range 100 { // either of two channels may be looked at first
		o, incoming := newOffspring(), make(chan received, 1)
		close(o.spawned.done)
		incoming <- received{message: &handoff.Ready{}}
		if err := o.confirm(t.Context(), nil, incoming, func(m handoff.Message) error { return refusal("ACK", m) }); err != nil {
			t.Fatal(err)
		}
	}
}
