//go:build linux

package listener

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// The server's time for a whole request begins with its first byte, as if the connection had not moved: not when it was adopted.
func TestReadTimeoutBeginsWithTheRequestAfterTheMove(t *testing.T) {
	const timeout = 200 * time.Millisecond
	for _, test := range []struct {
		name      string
		configure func(*http.Server)
	}{
		{"one for all", func(srv *http.Server) { srv.ReadTimeout = timeout }},
		{"and one for the header", func(srv *http.Server) { srv.ReadTimeout, srv.ReadHeaderTimeout = timeout, timeout/2 }},
		{"and none for the header", func(srv *http.Server) { srv.ReadTimeout, srv.ReadHeaderTimeout = timeout, -1 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			first, second := twoServers(t, func(srv *http.Server) {
				srv.IdleTimeout = within
				test.configure(srv)
			})
			c := dialServer(t, first)
			c.write(get(0))
			c.expect(1, "0")
			first.moveTo(t, second)
			<-time.After(timeout * 3 / 2)
			for _, sent := range []string{"first", "second"} {
				begun := time.Now()
				c.write("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n")
				second.hasRead(t)
				if sent == "first" {
					c.write("0123456789")
					c.expect(2, "0123456789")
					continue
				}
				if _, err := io.ReadAll(c.reader); err != nil {
					t.Error(err)
				}
				if took := time.Since(begun); took < timeout || took > timeout+5*time.Second {
					t.Errorf("want a body that does not come to be awaited for %v, have %v", timeout, took)
				}
			}
		})
	}
}
