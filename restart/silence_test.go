//go:build linux

package restart

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
)

// A predecessor that falls silent before its GRANT may have paused its listeners already. So its successor accepts, whatever was the last
// that it heard.
func TestInvariant2SilenceBeforeGrantHasTheSuccessorAccept(t *testing.T) {
	for _, test := range []struct {
		name  string
		pings uint64
	}{{"after READY", 0}, {"after a PING", 1}, {"after two", 2}} {
		t.Run(test.name, func(t *testing.T) {
			g, c := newTwin(t), newConversation(t)
			g.options.PingInterval, g.options.PingTimeout = 50*time.Millisecond, time.Second
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			c.bequeath(ctx, t, g, firstCapabilities, &handoff.Offer{ID: 1})
			ln, err := g.Listen(ctx, "echo", "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			accepted := make(chan error, 1)
			go func() {
				conn, err := ln.Accept()
				if err == nil {
					err = conn.Close()
				}
				accepted <- err
			}()
			runTwin(t, g)
			if message, err := c.predecessor.Receive(ctx); err != nil {
				t.Fatalf("want READY, have %T, %v", message, err)
			}
			for number := range test.pings {
				if err := c.predecessor.Send(ctx, &handoff.Ping{Number: 1 + number}); err != nil {
					t.Fatal(err)
				}
				message, err := c.predecessor.Receive(ctx)
				if _, ok := message.(*handoff.Pong); !ok {
					t.Fatalf("want PONG, have %T, %v", message, err)
				}
			}
			client, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			select {
			case err := <-accepted:
				if err != nil {
					t.Error(err)
				}
			case <-ctx.Done():
				t.Errorf("nobody accepts, and the successor's patience is %v", g.options.patience())
			}
		})
	}
}
