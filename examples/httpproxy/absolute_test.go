//go:build linux

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A request in absolute form needs no path (RFC 9112, section 3.2.1).
func TestRequestsWithoutAPath(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RequestURI)
	}))
	t.Cleanup(upstream.Close)
	client := newKeepAlive(t, start(t, "-upstream", upstream.URL).Addr)
	client.say("GET http://test HTTP/1.1\r\nHost: test\r\n\r\n")
	if have := client.answer(); have != "/" {
		t.Errorf("want /, have %q", have)
	}
}
