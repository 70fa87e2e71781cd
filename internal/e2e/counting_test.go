//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// counting is a client that keeps its connection, and whose requests have numbers that their answers repeat: none may be
// lost, answered twice, out of turn or to somebody else. It returns what goes wrong instead of ending the test, because hundreds of
// them run at once.
type counting struct {
	name   int // unlike any other client's
	conn   net.Conn
	reader *bufio.Reader
	made   int  // requests made
	taken  int  // answers taken
	begun  bool // it has sent a part of a request that it will not end
}

func dialCounting(t *testing.T, address string, name int) *counting {
	t.Helper()
	c := &counting{name: name}
	if err := c.dial(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close() })
	return c
}

// dial opens the connection. Whoever calls it has to close that.
func (c *counting) dial(address string) (err error) {
	if c.conn, err = net.DialTimeout("tcp", address, patience); err != nil {
		return fmt.Errorf("client %d: %w", c.name, err)
	}
	c.reader = bufio.NewReader(c.conn)
	return nil
}

// dialManyCounting returns count clients. None has said anything yet.
func dialManyCounting(t *testing.T, address string, count int) []*counting {
	t.Helper()
	clients := make([]*counting, count)
	for i := range clients {
		clients[i] = dialCounting(t, address, i)
	}
	return clients
}

// next makes the next request, with at least that many bytes in its header.
func (c *counting) next(size int) []byte {
	c.made++
	request := fmt.Appendf(nil, "GET /?n=%d-%d HTTP/1.1\r\nHost: test\r\nX-Filler: ", c.name, c.made)
	request = append(request, bytes.Repeat([]byte("x"), max(0, size-len(request)))...)
	return append(request, "\r\n\r\n"...)
}

// write is bounded.
func (c *counting) write(p []byte) error {
	_ = c.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.conn.Write(p); err != nil {
		return fmt.Errorf("client %d, request %d: %w", c.name, c.made, err)
	}
	return nil
}

// answer takes the answer that is next, and returns who gave it. An answer that announces the end of the connection is an error.
func (c *counting) answer() (generation, pid int, err error) {
	c.taken++
	body, err := c.read()
	if err == nil {
		_, err = fmt.Sscanf(body, "generation %d pid %d", &generation, &pid)
	}
	want := fmt.Sprintf("generation %d pid %d request %d-%d\n", generation, pid, c.name, c.taken)
	if err == nil && body != want {
		err = fmt.Errorf("want %q, have %q", want, body)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("client %d, answer %d: %w", c.name, c.taken, err)
	}
	return generation, pid, nil
}

// read reads a response.
func (c *counting) read() (body string, err error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return "", err
	}
	content, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return "", err
	case response.StatusCode != http.StatusOK:
		return "", fmt.Errorf("status %s: %q", response.Status, content)
	case response.Close:
		return "", errors.New("the end of the connection was announced")
	}
	return string(content), nil
}

// ask makes a request and takes its answer, after which nothing more may have come.
func (c *counting) ask() (generation, pid int, err error) {
	if err := c.write(c.next(0)); err != nil {
		return 0, 0, err
	}
	generation, pid, err = c.answer()
	if more := c.reader.Buffered(); err == nil && more > 0 {
		err = fmt.Errorf("client %d: %d bytes after answer %d", c.name, more, c.taken)
	}
	return generation, pid, err
}

// askAll has each client make a request and expects that process to answer.
func askAll(t *testing.T, clients []*counting, wantPID int) {
	t.Helper()
	var failed mishaps
	forAll(len(clients), func(i int) {
		c := clients[i]
		_, pid, err := c.ask()
		if err == nil && pid != wantPID {
			err = fmt.Errorf("client %d, answer %d: want it of pid %d, have %d", c.name, c.taken, wantPID, pid)
		}
		failed.add(err)
	})
	failed.report(t)
}

// forAll does something for each of so many at once, and returns when all is done.
func forAll(count int, do func(i int)) {
	var doing sync.WaitGroup
	for i := range count {
		doing.Go(func() { do(i) })
	}
	doing.Wait()
}

// mishaps counts errors and keeps the first few: one cause may harm thousands. Its zero value is ready.
type mishaps struct {
	mu    sync.Mutex
	count int
	first []error
}

func (f *mishaps) add(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if len(f.first) < 10 {
		f.first = append(f.first, err)
	}
}

// report fails the test if there were any, and ends it: what follows would be in vain.
func (f *mishaps) report(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count > 0 {
		t.Fatalf("%d failed, among them %v", f.count, f.first)
	}
}
