package load

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// client makes one request after the other, on one goroutine.
type client struct {
	load   *Load
	kind   kind
	number int // among its kind, from 1
	begin  time.Time

	requests  int64         // made so far
	reconnect bool          // the server announced the end of the last connection
	failing   bool          // the last request failed,
	since     time.Duration // and the first in that row was sent then
	pauses    pauses
	answers   answers
	echo      *echo // of a post client

	// The connection belongs to the client's goroutine. Others may only wake it out of a wait between requests, or
	// close it, and for those two it is guarded.
	mu       sync.Mutex
	conn     *conn // nil when none is open
	watching bool  // the goroutine reads outside of a request
	stopped  bool
}

// kind is what sort of client one is; Config says what each does.
type kind int

const (
	keepAlive kind = iota
	post
	fresh
	idle
)

func (k kind) String() string {
	return [...]string{"keep-alive", "post", "fresh", "idle"}[k]
}

// afterFailure is how long a client that failed waits at least. It keeps a crowd from spinning against a dead server.
const afterFailure = 10 * time.Millisecond

func newClient(l *Load, k kind, number int, begin time.Time) *client {
	c := &client{load: l, kind: k, number: number, begin: begin}
	c.pauses = pauses{at: l.windows.first()}
	c.answers = answers{tally: &l.tally}
	if k == post {
		c.echo = newEcho(l.cfg.Body)
	}
	return c
}

// run is the life of a client. It calls first when it has had its first answer, has failed, or has no more to say.
func (c *client) run(first func()) {
	defer first()
	defer c.hangUp()
	defer c.settle()
	for next := c.begin; c.rest(next); {
		ok := c.request()
		first()
		next = c.next(next, ok)
	}
	if c.kind == idle {
		c.request()
	}
}

// next is the time of the request after the one that was due at last. For an idle client it is never, the zero time.
func (c *client) next(last time.Time, ok bool) time.Time {
	if c.kind == idle {
		return time.Time{}
	}
	next, earliest := last.Add(c.load.cfg.Interval), time.Now()
	if !ok {
		earliest = earliest.Add(afterFailure)
	}
	if next.Before(earliest) {
		return earliest
	}
	return next
}

// request makes one request and accounts for it.
func (c *client) request() (ok bool) {
	c.requests++
	sent := c.load.clock()
	announced, err := c.exchange()
	done := c.load.clock()
	if err != nil {
		c.fail(sent, err)
		return false
	}
	if announced || c.kind == fresh {
		c.hangUp()
	}
	c.reconnect = announced && c.kind != fresh
	if c.conn != nil {
		c.conn.answered = done
	}
	c.load.tally.answered(done - sent)
	if c.failing {
		sent, c.failing = c.since, false
	}
	c.observe(sent, done)
	return true
}

// exchange sends a request, on a new connection if there is none, and takes its answer.
func (c *client) exchange() (announced bool, err error) {
	if c.conn == nil {
		if err := c.dial(); err != nil {
			return false, err
		}
	}
	if c.kind == post {
		return c.conn.post(c.load.cfg, c.echo)
	}
	announced, body, err := c.conn.get(c.load.cfg)
	if err == nil {
		c.answers.count(body)
	}
	return announced, err
}

// dial opens the connection of a client that has none.
func (c *client) dial() error {
	if c.reconnect {
		c.load.tally.reconnects.Add(1)
		c.reconnect = false
	}
	dialer := net.Dialer{Timeout: c.load.cfg.Timeout}
	nc, err := dialer.DialContext(c.load.ctx, "tcp", c.load.cfg.Addr)
	if err != nil {
		return dialFailure(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = newConn(nc)
	if c.load.aborted.Load() {
		c.conn.Close()
	}
	return nil
}

// rest waits until the next request is due, or for ever if that is the zero time, and answers false when the load stops. It
// waits in a read, so that it learns at once of a connection that ends, or speaks, while nothing was asked.
func (c *client) rest(until time.Time) bool {
	if !until.IsZero() && !until.After(time.Now()) {
		return !c.stopping()
	}
	if c.conn != nil {
		err := c.watch(until)
		if c.stopping() {
			return false
		}
		if err == nil {
			return true
		}
		c.requests++ // the request that is lost is the one that was due next
		c.fail(c.load.clock(), err)
	}
	var due <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-due:
		return true
	case <-c.load.stop:
	case <-c.load.ctx.Done():
	}
	return false
}

// watch reads the connection between two requests, when nothing may come, and returns nil at the given time or when woken.
func (c *client) watch(until time.Time) error {
	c.mu.Lock()
	if c.stopped {
		c.mu.Unlock()
		return nil
	}
	c.watching = true
	err := c.conn.SetReadDeadline(until)
	c.mu.Unlock()
	if err == nil {
		_, err = c.conn.reader.Peek(1)
	}
	c.mu.Lock()
	c.watching = false
	c.mu.Unlock()
	switch {
	case err == nil:
		return failure{wrong, errors.New("bytes came that no request asked for")}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	}
	return failure{closed, fmt.Errorf("connection ended while idle, not announced: %w", err)}
}

// wake ends a wait of the client, the present one or the next. The client itself decides what that means.
func (c *client) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	if c.watching {
		// An error means that the connection is closed, which ends the wait as well.
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// cut closes the connection under the client.
func (c *client) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close()
	}
}

// hangUp closes the connection, if there is one.
func (c *client) hangUp() {
	c.cut()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
}

// stopping answers whether the load is stopping or cut off.
func (c *client) stopping() bool {
	if c.load.aborted.Load() {
		return true
	}
	select {
	case <-c.load.stop:
		return true
	default:
		return false
	}
}

// fail accounts for a request that was sent then and has failed.
func (c *client) fail(sent time.Duration, err error) {
	served, since := int64(0), time.Duration(0)
	if c.conn != nil {
		served, since = c.conn.requests, c.conn.answered
	}
	idle, took := sent-since, c.load.clock()-sent
	c.hangUp()
	if c.load.aborted.Load() {
		return // our own doing
	}
	if !c.failing {
		c.failing, c.since = true, sent
	}
	c.load.tally.fail(err, func() string {
		return fmt.Sprintf("%s client %d, request %d, connection used %d times, idle for %v, ended %v later: %v",
			c.kind, c.number, c.requests, served, idle, took, err)
	})
}

// observe accounts for the time of a request, or of a row of failed ones up to an answer, at the upgrades it met. An idle
// client makes no request while upgrades happen, so that its times say nothing about them.
func (c *client) observe(sent, done time.Duration) {
	if c.kind != idle {
		c.pauses.observe(&c.load.tally.pause, sent, done)
	}
}

// settle accounts for what the client had not finished to account for when it ends.
func (c *client) settle() {
	if c.failing {
		c.observe(c.since, c.load.clock())
	}
	c.pauses.settle(&c.load.tally.pause)
}
