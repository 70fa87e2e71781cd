package load

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestConfig(t *testing.T) {
	tests := map[string]Config{
		"no address":  {KeepAlive: 1},
		"no clients":  {Addr: "x:1"},
		"0 clients":   {Addr: "x:1", KeepAlive: 1, Fresh: -1},
		"at most":     {Addr: "x:1", KeepAlive: maxClients, Fresh: maxClients},
		"of one kind": {Addr: "x:1", KeepAlive: 1 << 62, Fresh: 1 << 62},
		"body":        {Addr: "x:1", Post: 1, Body: -1},
		"negative":    {Addr: "x:1", KeepAlive: 1, Interval: -1},
		"path":        {Addr: "x:1", KeepAlive: 1, Path: "/ HTTP/1.1\r\n"},
	}
	for want, cfg := range tests {
		if want == "0 clients" {
			want = "-1 clients"
		}
		if l, err := Start(t.Context(), cfg); err == nil || l != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", cfg, err, want)
		}
	}
}

// TestInterval checks the pace and the spread of a crowd on a clock of its own.
func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Load{cfg: Config{Interval: 20 * time.Millisecond}}
		c := newClient(l, keepAlive, 1, time.Now())
		begin := time.Now()
		check := func(what string, got time.Time, want time.Duration) {
			t.Helper()
			if got.Sub(begin) != want {
				t.Errorf("%s: next after %v, want %v", what, got.Sub(begin), want)
			}
		}
		time.Sleep(5 * time.Millisecond)
		check("answered", c.next(begin, true), 20*time.Millisecond)
		time.Sleep(70 * time.Millisecond)
		check("answered late", c.next(begin, true), 75*time.Millisecond)
		check("failed late", c.next(begin, false), 85*time.Millisecond)
		c.kind = idle
		if next := c.next(begin, true); !next.IsZero() {
			t.Errorf("idle: next at %v, want never", next)
		}
	})
}
