//go:build linux || darwin || freebsd

package restart

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/segue-go/segue/listener"
)

// ending is what RelayOptions.Ended was told.
type ending struct {
	generation  int
	there, back int64
	refused     bool
	err         error
}

// relayTwin has a generation relay what it accepts to upstream.
func relayTwin(t *testing.T, g *Generation, kind string, upstream net.Listener, ended chan<- ending) *listener.Listener {
	t.Helper()
	ln, err := g.Listen(t.Context(), "proxy", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pairs := g.Relays(kind, RelayOptions{Ended: func(a, b *listener.Conn, relay *listener.Relay, err error) {
		there, back := relay.Passed()
		ended <- ending{g.Number(), there, back, a.Refused() && b.Refused(), err}
	}})
	g.Conns(ln, func(ctx context.Context, c *listener.Conn) {
		dialed, err := net.Dial("tcp", upstream.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		conn, err := g.Own(dialed)
		if err != nil {
			t.Error(err)
			return
		}
		pairs.Serve(ctx, c, conn)
	})
	return ln
}

// A pair moves after the commit, and goes on as it was; a successor that does not know its kind leaves it where it is.
func TestRelaysMoveOrStay(t *testing.T) {
	for _, test := range []struct {
		name, kind string // the successor's
		want       ending
	}{
		{"moves", "pair", ending{2, 6, 2, false, nil}},
		{"stays", "other", ending{1, 6, 2, true, nil}},
	} {
		t.Run(test.name, func(t *testing.T) {
			upstream, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer upstream.Close()
			ended := make(chan ending, 1)
			g := newTwin(t)
			g.options.Drain = 30 * time.Second
			ln := relayTwin(t, g, "pair", upstream, ended)
			first := runFirst(t, g)
			client, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			server, err := upstream.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			pass := func(from, to net.Conn, text string) {
				t.Helper()
				have := make([]byte, len(text))
				if _, err := io.WriteString(from, text); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(to, have); err != nil || string(have) != text {
					t.Fatalf("want %q, have %q, %v", text, have, err)
				}
			}
			pass(client, server, "one")
			pass(server, client, "1")
			successor := first.upgrade(t, func(next *Generation) { relayTwin(t, next, test.kind, upstream, ended) })
			go first.leave()
			if test.want.refused {
				awaitUnwanted(t, first, "pair")
			} else {
				successor.awaitPredecessor(t)
			}
			pass(client, server, "two")
			pass(server, client, "2")
			_ = client.(*net.TCPConn).CloseWrite()
			_ = server.(*net.TCPConn).CloseWrite()
			for _, conn := range []net.Conn{client, server} {
				if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("want EOF, have %d bytes, %v", n, err)
				}
			}
			if have := <-ended; have != test.want {
				t.Errorf("want %v, have %v", test.want, have)
			}
		})
	}
}

// awaitUnwanted waits until a successor has said that it does not know the kind, and what was offered is back.
func awaitUnwanted(t *testing.T, predecessor *runner, kind string) {
	t.Helper()
	<-predecessor.leaving
	departures := predecessor.mover().departures
	for late := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		departures.mu.Lock()
		unwanted := departures.unwanted[kind]
		departures.mu.Unlock()
		if unwanted {
			break
		}
		if time.Now().After(late) {
			t.Fatalf("%q was not refused", kind)
		}
	}
	if err := departures.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What a predecessor says of a pair is checked; its connections are closed if it makes no sense.
func TestInvariant7RelaysRefuseNonsense(t *testing.T) {
	for _, test := range []struct {
		name  string
		conns int
		state []byte
	}{
		{"no state", 2, nil},
		{"a negative count", 2, []byte("\xa1\x01\x82\x20\x00")},
		{"one connection", 1, listener.NewRelay(nil, nil).State()},
	} {
		g := newTwin(t)
		g.Relays("pair", RelayOptions{Ended: func(_, _ *listener.Conn, _ *listener.Relay, err error) {
			t.Errorf("%s: relayed: %v", test.name, err)
		}})
		var conns []*listener.Conn
		var peers []net.Conn
		for range test.conns {
			c, peer := owned(t, g)
			conns, peers = append(conns, c), append(peers, peer)
		}
		g.raw.start(conns, func() { g.raw.adopters["pair"].serve(g.raw.ctx, conns, test.state) })
		for _, peer := range peers {
			if n, err := peer.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("%s: want EOF, have %d bytes, %v", test.name, n, err)
			}
		}
		g.abandon()
	}
}
