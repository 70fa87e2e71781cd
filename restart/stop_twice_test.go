//go:build linux

package restart

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
)

// When all processes of a service are told to stop just after a commit, the successor is told twice: by its own signal, and by its
// predecessor, which passes its signal on. That is one stop, and it drains; the second signal ends that.
func TestStopThatIsPassedOnIsNotTheSecondStop(t *testing.T) {
	const signalled, passedOn = "signal", "BYE"
	for _, test := range []struct {
		name string
		told []string // in this order
		want []string // said of the stop signals
	}{
		{"signal first", []string{signalled, passedOn}, []string{"stopping: terminated", "not waiting for connections any more: interrupt"}},
		{"BYE first", []string{passedOn, signalled}, []string{"stopping: passed on by the predecessor",
			"draining already: another one ends that: terminated", "not waiting for connections any more: interrupt"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, c := newTwin(t), newConversation(t)
			said := make(signalLog, 10)
			g.log = slog.New(said)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c.bequeathLedger(ctx, t, g)
			ln, err := g.Listen(ctx, "web", "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			begun := make(chan struct{})
			g.HTTP(ln, &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				close(begun)
				<-r.Context().Done() // until it is cut
			})})
			ended, stop := make(chan struct{}), make(chan struct{})
			g.Add(func() error { <-stop; return nil }, func(error) { close(ended); close(stop) })
			successor := runTwin(t, g)
			if err := commitByScript(ctx, c.predecessor); err != nil {
				t.Fatal(err)
			}
			<-successor.Serving()
			client, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			<-begun

			for _, how := range test.told {
				if how == signalled {
					g.stop <- syscall.SIGTERM
				} else if err := errors.Join(c.predecessor.Send(ctx, &handoff.Rollback{}), c.predecessor.Send(ctx, &handoff.Bye{Stop: true})); err != nil {
					t.Fatal(err)
				} else {
					<-g.leaving
				}
				<-ended
			}
			for i, want := range test.want {
				if i == len(test.want)-1 {
					g.stop <- syscall.SIGINT // this one is to hurry, and no earlier one
				}
				select {
				case have := <-said:
					if want != have {
						t.Errorf("want %q, have %q", want, have)
					}
				case <-ctx.Done():
					t.Fatalf("%q was not said", want)
				}
			}
			successor.wait()
		})
	}
}

// A signal that comes when this generation leaves already, and its group has not ended yet, counts as the first one.
func TestStopSignalsAreCountedWhileTheGroupEnds(t *testing.T) {
	g := newTwin(t)
	defer g.abandon()
	said := make(signalLog, 10)
	g.log = slog.New(said)
	close(g.leaving)
	execute, interrupt := g.stopActor(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- execute() }()
	go g.hearStops(t.Context())
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		g.stop <- signal
	}
	select {
	case <-g.hurry:
	case <-time.After(30 * time.Second):
		t.Error("the second signal did not end the drain")
	}
	interrupt(nil)
	<-stopped
}

// signalLog is a log of which only what was said of stop signals is kept.
type signalLog chan string

func (l signalLog) Enabled(context.Context, slog.Level) bool { return true }
func (l signalLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l signalLog) WithGroup(string) slog.Handler            { return l }
func (l signalLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "signal" {
			l <- r.Message + ": " + a.Value.String()
		}
		return true
	})
	return nil
}
