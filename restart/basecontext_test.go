//go:build linux || darwin || freebsd

package restart

import (
	"context"
	"net"
	"net/http"
	"testing"
)

// What moves is accepted from a listener that the user has never seen: BaseContext is called with the one that it has.
func TestBaseContextGetsTheUsersListener(t *testing.T) {
	g := newTwin(t)
	ln, err := g.Listen(t.Context(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan net.Listener, 2)
	g.HTTP(ln, &http.Server{BaseContext: func(ln net.Listener) context.Context {
		seen <- ln
		return context.Background()
	}})
	runFirst(t, g)
	for range 2 {
		if have := <-seen; have != ln {
			t.Errorf("want %T, have %T", ln, have)
		}
	}
}
