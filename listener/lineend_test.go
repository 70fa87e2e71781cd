//go:build linux

package listener

import (
	"io"
	"math"
	"net/http"
	"testing"
	"time"
)

// A line end after a body is no request: the idle time of a connection goes on if nothing else waits when it is adopted.
func TestIdleTimeoutGoesOnAfterALineEnd(t *testing.T) {
	const idle = 400 * time.Millisecond
	first, second := twoServers(t, func(srv *http.Server) { srv.IdleTimeout = idle })
	c := dialServer(t, first)
	c.write(get(1))
	c.expect(1, "1")
	answered := time.Now()
	_ = c.conn.SetDeadline(answered.Add(idle + 5*time.Second))
	first.ln.Pause()
	first.ln.Detach(math.MaxInt, func(d *Detached, _ bool) {
		c.write("\r\n")
		if err := second.ln.Adopt(d); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.reader.ReadByte(); err != io.EOF {
		t.Fatalf("want the end of the idle connection, have %v", err)
	}
	if lasted := time.Since(answered); lasted < idle-50*time.Millisecond {
		t.Errorf("want it closed after %v, have %v", idle, lasted)
	}
}
