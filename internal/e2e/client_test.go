//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// keptConn is a client that keeps its connection.
type keptConn struct {
	t      *testing.T
	conn   net.Conn
	reader *bufio.Reader
	closed bool // the server announced it
}

func dialKept(t *testing.T, address string) *keptConn {
	t.Helper()
	return dialKeptOver(t, "tcp", address)
}

func dialKeptOver(t *testing.T, network, address string) *keptConn {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &keptConn{t: t, conn: conn, reader: bufio.NewReader(conn)}
}

// ask makes a request and expects that process to answer.
func (c *keptConn) ask(wantPID int) (generation int) {
	c.t.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprint(c.conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		c.t.Fatal(err)
	}
	return c.answer(wantPID)
}

// answer reads the response to what was sent.
func (c *keptConn) answer(wantPID int) (generation int) {
	c.t.Helper()
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		c.t.Fatalf("response: %v", err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscanf(string(body), "generation %d pid %d", &generation, &pid); err != nil {
		c.t.Fatalf("%q: %v", body, err)
	}
	if wantPID != 0 && pid != wantPID {
		c.t.Errorf("want an answer of pid %d, have %d", wantPID, pid)
	}
	c.closed = response.Close
	return generation
}
