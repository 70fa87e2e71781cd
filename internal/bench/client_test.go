//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// client is one keep-alive connection. It does little, so that the processor time of a request is the server's.
type client struct {
	conn    net.Conn
	r       *bufio.Reader
	request []byte
	size    int // of the body that is to come
}

// dialAll opens n connections that ask for path.
func dialAll(t testing.TB, address, path string, n int) []*client {
	t.Helper()
	size := map[string]int{hello: len("hello, world\n"), file: fileSize}[path]
	buffer := min(64<<10, size+4096)
	clients := make([]*client, n)
	for i := range clients {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		clients[i] = &client{
			conn:    conn,
			r:       bufio.NewReaderSize(conn, buffer),
			request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n\r\n", path, address),
			size:    size,
		}
	}
	return clients
}

// do sends a request and reads the response.
func (c *client) do() error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	status, err := c.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("status line %q", status)
	}
	size := -1
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			size, _ = strconv.Atoi(string(value))
		}
	}
	if size != c.size {
		return fmt.Errorf("body of %d bytes, want %d", size, c.size)
	}
	_, err = c.r.Discard(size)
	return err
}

// each calls f for all clients at once, and returns when it has returned for all.
func each(t testing.TB, clients []*client, f func(*client) error) {
	t.Helper()
	var done sync.WaitGroup
	for _, c := range clients {
		done.Go(func() {
			if err := f(c); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// repeat sends n requests on each connection.
func repeat(t testing.TB, clients []*client, n int) {
	t.Helper()
	each(t, clients, func(c *client) error {
		for range n {
			if err := c.do(); err != nil {
				return err
			}
		}
		return nil
	})
}

// turn sends requests for about d, and returns how many were answered in what time.
func turn(t testing.TB, clients []*client, d time.Duration) (n int, took time.Duration) {
	t.Helper()
	var over atomic.Bool
	var answered atomic.Int64
	begin := time.Now()
	time.AfterFunc(d, func() { over.Store(true) })
	each(t, clients, func(c *client) error {
		for !over.Load() {
			if err := c.do(); err != nil {
				return err
			}
			answered.Add(1)
		}
		return nil
	})
	return int(answered.Load()), time.Since(begin)
}
