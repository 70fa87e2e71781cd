package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"time"
)

// conn is one connection of a client: a request, its whole answer, the next.
type conn struct {
	net.Conn
	source   source
	reader   *bufio.Reader // of source
	requests int64         // sent on it
	answered time.Duration // when the last answer was complete, on the load's clock
}

// source is what the answers are read from. It knows what ended it, which the HTTP parser does not tell when it was in the
// middle of a line, and it bounds a header.
type source struct {
	io.Reader
	left int64
	err  error
}

// maxHeader bounds the header of an answer.
const maxHeader = 64 << 10

var errHeader = fmt.Errorf("header of more than %d bytes", maxHeader)

func (s *source) Read(p []byte) (n int, err error) {
	if s.left <= 0 {
		return 0, errHeader
	}
	n, err = s.Reader.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	s.err = err
	return n, err
}

func newConn(nc net.Conn) *conn {
	c := &conn{Conn: nc, source: source{Reader: nc, left: math.MaxInt64}}
	c.reader = bufio.NewReader(&c.source)
	return c
}

// get asks for a page and returns the start of it. The answer must be 200 and complete.
func (c *conn) get(cfg Config) (announced bool, body []byte, err error) {
	if err := c.send(cfg, "GET", cfg.Path, ""); err != nil {
		return false, nil, err
	}
	answer, err := c.answer()
	if err != nil {
		return false, nil, err
	}
	body, err = io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err == nil {
		_, err = io.Copy(io.Discard, answer.Body)
	}
	if err != nil {
		return false, nil, readFailure("body", err)
	}
	return answer.Close, body, c.finished()
}

// post sends a body and compares what comes back with it. The answer may start before the request has ended.
func (c *conn) post(cfg Config, e *echo) (announced bool, err error) {
	e.begin()
	header := fmt.Sprintf("Content-Type: application/octet-stream\r\nContent-Length: %d\r\n", cfg.Body)
	if err := c.send(cfg, "POST", "/echo", header); err != nil {
		return false, err
	}
	sent := make(chan error, 1)
	go func() { sent <- e.send(c) }()
	announced, err = c.echoed(e)
	if err != nil {
		c.Close() // the sender may be blocked in a write that nobody will read
		// A server that ended the connection is what the sender met first; that the reader closed it is no news.
		if err2 := <-sent; err2 != nil && !errors.Is(err2, net.ErrClosed) {
			err = fmt.Errorf("%w (sending: %v)", err, err2)
		}
		return false, err
	}
	if err := <-sent; err != nil {
		return false, failure{wrong, fmt.Errorf("answered, but the request could not be sent: %w", err)}
	}
	return announced, nil
}

// echoed takes the answer to a post.
func (c *conn) echoed(e *echo) (announced bool, err error) {
	answer, err := c.answer()
	if err != nil {
		return false, err
	}
	if err := e.compare(answer.Body); err != nil {
		return false, err
	}
	return answer.Close, c.finished()
}

// send sends a request without its body and sets the deadline for the whole of it and its answer.
func (c *conn) send(cfg Config, method, path, header string) error {
	c.requests++
	if err := c.SetDeadline(time.Now().Add(cfg.Timeout)); err != nil {
		return failure{closed, err}
	}
	_, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: segue-load\r\n%s\r\n", method, path, cfg.Addr, header)
	if err != nil {
		return cutFailure(closed, fmt.Errorf("send request: %w", err))
	}
	return nil
}

// answer reads the header of an answer. Its body must have a length of its own: one that ends with the connection cannot be
// told from one that was cut.
func (c *conn) answer() (*http.Response, error) {
	if _, err := c.reader.Peek(1); err != nil {
		return nil, cutFailure(closed, fmt.Errorf("connection ended before the answer, not announced: %w", err))
	}
	c.source.left = maxHeader
	answer, err := http.ReadResponse(c.reader, nil)
	c.source.left = math.MaxInt64
	switch {
	case err != nil && c.source.err != nil:
		return nil, readFailure("header", c.source.err)
	case err != nil:
		return nil, readFailure("header", err)
	case !answer.ProtoAtLeast(1, 1):
		return nil, failure{wrong, fmt.Errorf("answer in %s", answer.Proto)}
	case answer.StatusCode != http.StatusOK:
		return nil, failure{wrong, fmt.Errorf("status %s", answer.Status)}
	case answer.ContentLength < 0 && !slices.Contains(answer.TransferEncoding, "chunked"):
		return nil, failure{wrong, errors.New("answer without a length")}
	}
	return answer, nil
}

// finished checks that nothing follows the answer.
func (c *conn) finished() error {
	if n := c.reader.Buffered(); n > 0 {
		return failure{wrong, fmt.Errorf("%d bytes after the end of the answer", n)}
	}
	return nil
}
