//go:build linux

package restart

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/segue-go/segue/listener"
)

// named serves HTTP/1 with its name for an answer, which it says when answer is closed, and tells when a request has come.
func named(t *testing.T, g *Generation, name string, came chan<- struct{}, answer <-chan struct{}) *listener.Listener {
	t.Helper()
	ln, err := g.Listen(t.Context(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.HTTP(ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		came <- struct{}{}
		<-answer
		_, _ = io.WriteString(w, name)
	})})
	return ln
}

// asker is a client's connection.
type asker struct {
	net.Conn
	answers *bufio.Reader
}

func newAsker(t *testing.T, address net.Addr) *asker {
	t.Helper()
	conn, err := net.Dial("tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &asker{conn, bufio.NewReader(conn)}
}

// hangUp is deferred, so that no generation waits for clients when the test ends.
func hangUp(askers []*asker) {
	for _, a := range askers {
		if a != nil {
			_ = a.Close()
		}
	}
}

func (a *asker) ask() error {
	_ = a.SetDeadline(time.Now().Add(30 * time.Second))
	_, err := io.WriteString(a, "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	return err
}

// hear returns who has answered.
func (a *asker) hear() (string, error) {
	response, err := http.ReadResponse(a.answers, nil)
	if err != nil {
		return "", err
	}
	name, err := io.ReadAll(response.Body)
	if err == nil && response.Close {
		err = errors.New("the end was announced")
	}
	return string(name), err
}

// However slow Spread is, and whatever else moves, the connections are gone before the drain ends, which would cut them.
func TestInvariant3SpreadEndsBeforeTheDrain(t *testing.T) {
	for _, test := range []struct {
		name          string
		spread, drain time.Duration
		raws          int
	}{
		{"longer than the drain", time.Minute, 2 * time.Second, 0},
		{"more raw connections than others", time.Second, 4 * time.Second, 50},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			answer, came := make(chan struct{}), make(chan struct{}, math.MaxInt16)
			close(answer)
			handling := make(chan struct{}, test.raws)
			serve := func(g *Generation, name string) (web, raw *listener.Listener) {
				raw, err := g.Listen(t.Context(), "raw", "tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				g.Conns(raw, func(ctx context.Context, c *listener.Conn) {
					handling <- struct{}{}
					<-ctx.Done()
					if err := g.Detach("raw", nil, c); err != nil {
						t.Error(err)
					}
				})
				g.Adopt("raw", func(_ context.Context, c *listener.Conn, _ []byte) { c.Close() })
				return named(t, g, name, came, answer), raw
			}
			g := newTwin(t)
			g.options.Spread, g.options.Drain = test.spread, test.drain
			web, raw := serve(g, "old")
			first := runFirst(t, g)
			for range test.raws {
				newAsker(t, raw.Addr())
				<-handling
			}
			askers := make([]*asker, 5)
			defer hangUp(askers)
			for i := range askers {
				askers[i] = newAsker(t, web.Addr())
			}
			first.upgrade(t, func(next *Generation) { serve(next, "new") })
			go first.leave()
			for late := time.Now().Add(30 * time.Second); ; {
				moved := 0
				for i, a := range askers {
					err := a.ask()
					if err != nil {
						t.Fatalf("connection %d: %v", i, err)
					}
					<-came
					name, err := a.hear()
					if err != nil {
						t.Fatalf("connection %d: %v", i, err)
					}
					if name == "new" {
						moved++
					}
				}
				if moved == len(askers) {
					return
				}
				if time.Now().After(late) {
					t.Fatalf("of %d connections, %d have moved", len(askers), moved)
				}
			}
		})
	}
}

// Also those that are in the middle of a request, all of whom end at once, leave one after the other.
func TestSpreadHoldsForBusyConnections(t *testing.T) {
	const clients, spread = 40, time.Minute
	answer, came := make(chan struct{}), make(chan struct{}, 2*clients)
	g := newTwin(t)
	g.options.Spread, g.options.Drain = spread, time.Hour
	web := named(t, g, "old", came, answer)
	first := runFirst(t, g)
	askers := make([]*asker, clients)
	defer hangUp(askers)
	for i := range askers {
		askers[i] = newAsker(t, web.Addr())
		if err := askers[i].ask(); err != nil {
			t.Fatal(err)
		}
		<-came
	}
	begin := time.Now()
	first.upgrade(t, func(next *Generation) { named(t, next, "new", came, answer) })
	go first.leave()
	<-first.leaving
	close(answer)
	moved := 0
	for _, again := range []bool{true, false} {
		for i, a := range askers {
			name, err := a.hear()
			if err == nil && again {
				err = a.ask()
			}
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			if name == "new" {
				moved++
			}
		}
	}
	if most := 1 + int(math.Ceil(clients*float64(time.Since(begin))/float64(spread))); moved > most {
		t.Errorf("of %d connections, %d have moved within %v of %v: want %d at most", clients, moved, time.Since(begin), spread, most)
	}
}

// A successor that keeps no ledger gets connections after the commit only, and then Spread begins in the drain.
func TestSpreadThatBeginsWithTheDrainEndsBeforeIt(t *testing.T) {
	for _, test := range []struct{ spread, want time.Duration }{{time.Minute, 5 * time.Second}, {time.Second, time.Second}, {0, 0}} {
		c := newConversation(t)
		m := &mover{session: c.predecessor, spread: test.spread, drain: 10 * time.Second, credit: -1, departures: newDepartures()}
		begin := time.Now()
		if err := m.commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		earliest, latest := begin.Add(test.want), time.Now().Add(test.want)
		if have := m.pace.until; have.Before(earliest) || have.After(latest) {
			t.Errorf("Spread %v: want all asked %v from the commit, have %v", test.spread, test.want, have.Sub(begin))
		}
	}
}

func TestPace(t *testing.T) {
	begin := time.Now()
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	p := pace{until: at(100)}
	p.start(begin, 1000)
	for i, test := range []struct {
		do   func()
		now  int
		want int
	}{
		{func() {}, 0, 1},
		{func() {}, 10, 101},
		{func() { p.asked = 101 }, 10, 0},
		{func() { p.asked = 200 }, 10, -99},
		{func() { p.start(at(50), 500) }, 50, 1}, // what was let go is asked anew, in the time that is left
		{func() {}, 75, 251},
		{func() { p.by(at(200)) }, 75, 251},
		{func() { p.by(at(85)); p.start(at(75), 100) }, 80, 51},
		{func() {}, 85, math.MaxInt},
		{func() { p = pace{} }, 0, math.MaxInt},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			test.do()
			if have := p.room(at(test.now)); have != test.want {
				t.Errorf("after %d s: want room for %d, have %d", test.now, test.want, have)
			}
		})
	}
}
