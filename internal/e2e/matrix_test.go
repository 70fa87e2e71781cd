//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	matrixProbation = 500 * time.Millisecond
	// answerWithin is how soon a new connection is answered after a process was stopped or has died, whichever it was.
	answerWithin = time.Second
)

var moments = []moment{beforeReady, duringOffers, beforeGrant, afterRequests, beforeCommit}

// Whatever goes wrong in an upgrade, and whenever: somebody answers new connections within a second, every connection that is between
// two requests lives on without its client noticing, none is ever read by two processes, nothing is left behind, and the next
// upgrade works.
func TestInvariants1And2And3ProbationMatrix(t *testing.T) {
	for _, fault := range []fault{killed, stopped, panics, exits, unhealthy, garbage, predecessorKilled, predecessorStopped} {
		for _, moment := range moments {
			t.Run(fmt.Sprintf("%s %s", fault, moment), func(t *testing.T) {
				t.Parallel()
				cell := newCell(t, sabotage{moment, fault})
				cell.run()
			})
		}
	}
}

// cell is one run of the matrix: a service, its clients, and what is to go wrong.
type cell struct {
	*service
	sabotage
	first int // pid
	idle  []*numberedConn
	fresh []*numberedConn
	// These are in the middle of a request all the time, so they are the predecessor's.
	half []*numberedConn
	slow *numberedConn
}

func newCell(t *testing.T, s sabotage) *cell {
	c := &cell{sabotage: s}
	c.service = startService(t, config{Probation: matrixProbation, UpgradeTimeout: 5 * time.Second, Drain: patience})
	c.first = c.pid()
	for range 40 {
		conn := dialNumbered(t, c.address)
		conn.mustAsk(t)
		c.idle = append(c.idle, conn)
	}
	for range 10 {
		c.fresh = append(c.fresh, dialNumbered(t, c.address))
	}
	for range 3 {
		conn := dialNumbered(t, c.address)
		if _, err := fmt.Fprint(conn, "GET /?n=1 HTTP/1.1\r\nHo"); err != nil {
			t.Fatal(err)
		}
		c.half = append(c.half, conn)
	}
	c.slow = dialNumbered(t, c.address)
	if _, err := fmt.Fprint(c.slow, "GET /slow?d=1s HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cell) run() {
	before := c.measure()
	content, err := json.Marshal(c.sabotage)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(c.config.sabotageFile(), content, 0o600); err != nil {
		c.t.Fatal(err)
	}
	mark := c.mark()
	newcomers := c.sendNewcomers()
	touched := c.touch(c.idle[:20])
	c.signal(c.first, syscall.SIGHUP)
	saboteur := c.awaitAfter(mark, "sabotage", func(l line) bool { return l.Message == "sabotage" })
	switch c.Fault {
	case predecessorKilled:
		c.afterDeathOfPredecessor(mark, saboteur.PID, newcomers, touched)
	case predecessorStopped:
		c.afterStopOfPredecessor(mark, saboteur.PID, newcomers, touched)
	default:
		c.afterRollback(mark, saboteur, newcomers, touched, before)
	}
}

// afterRollback expects everything to be with the predecessor, but for what the successor had just begun to read.
func (c *cell) afterRollback(mark int, saboteur line, newcomers *newcomers, touched *toucher, before footprint) {
	if c.Fault == stopped {
		awaitStates(saboteur.PID, "T")
		c.expectOneReader(c.first, saboteur.PID)
	}
	c.awaitAfter(mark, "end of the upgrade", func(l line) bool { return l.Message == "upgrade failed" })
	awaitExit(c.t, saboteur.PID)
	newcomers.stop(c.t)
	touched.stop()
	lost := c.buryUsed(saboteur.Time)
	c.expectAlive(c.first, c.idle)
	c.expectAlive(c.first, c.fresh)
	c.finishHalf(c.first)
	if generation, pid := c.serving(); generation != 1 || pid != c.first || c.pid() != c.first {
		c.t.Errorf("want generation 1 of pid %d, have generation %d of pid %d", c.first, generation, pid)
	}
	c.expectHolder(c.first, saboteur.PID)
	if lost == 0 { // a connection less is a descriptor and some goroutines less
		if have := c.settled(before); have != "" {
			c.t.Errorf("left behind: %s", have)
		}
	}
	_ = os.Remove(c.config.sabotageFile())
	second := c.hangup(2).PID
	awaitExit(c.t, c.first)
	c.expectAlive(second, c.idle)
	c.expectAlive(second, c.fresh)
	c.expectAlive(second, c.half)
	c.expectHolder(second, c.first)
}

// afterDeathOfPredecessor expects everything that it had granted, or could have, to be with the successor.
func (c *cell) afterDeathOfPredecessor(mark, second int, newcomers *newcomers, touched *toucher) {
	awaitExit(c.t, c.first)
	c.awaitAfter(mark, "promotion", func(l line) bool { return l.Message == "serving" && l.Generation == 2 })
	newcomers.stop(c.t)
	touched.stop()
	lived, died := 0, 0
	for _, conn := range append(c.idle, c.fresh...) {
		switch pid, err := conn.ask(); {
		case conn.dead:
		case err == nil && pid == second:
			lived++
		case err == nil:
			c.t.Errorf("want an answer of pid %d, have %d", second, pid)
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.t.Errorf("a connection that nobody has hangs: %v", err)
		default:
			died++
		}
	}
	// All are granted by then. Those of a request that was under way are the predecessor's.
	if all := c.Moment == afterRequests || c.Moment == beforeCommit; all && died > 0 {
		c.t.Errorf("%d connections live, %d died that were the successor's", lived, died)
	}
	if c.Moment == beforeGrant && lived == 0 {
		c.t.Error("no connection lives, though the successor had acknowledged some")
	}
	if generation, pid := c.serving(); generation != 2 || pid != second {
		c.t.Errorf("want generation 2 of pid %d, have generation %d of pid %d", second, generation, pid)
	}
	_ = os.Remove(c.config.sabotageFile())
	third := c.hangup(3).PID
	awaitExit(c.t, second)
	for _, conn := range append(c.idle, c.fresh...) {
		if conn.dead {
			continue
		}
		if pid, err := conn.ask(); err != nil || pid != third {
			c.t.Errorf("want an answer of pid %d, have %d, %v", third, pid, err)
		}
	}
}

// afterStopOfPredecessor expects the upgrade to go on when the predecessor does.
func (c *cell) afterStopOfPredecessor(mark, second int, newcomers *newcomers, touched *toucher) {
	c.awaitAfter(mark, "stop", func(l line) bool { return l.Message == "sabotaged" })
	c.expectOneReader(c.first, second)
	newcomers.awaitAnswer(c.t, second)
	c.signal(c.first, syscall.SIGCONT)
	c.awaitAfter(mark, "second generation", func(l line) bool { return l.Message == "serving" && l.Generation == 2 })
	newcomers.stop(c.t)
	if lost := touched.stop(); lost != 0 {
		c.t.Errorf("lost: want no request, have %d", lost)
	}
	c.finishHalf(0)
	c.expectAlive(0, c.idle)
	c.expectAlive(0, c.fresh)
	awaitExit(c.t, c.first)
	c.expectAlive(second, c.idle)
	c.expectAlive(second, c.fresh)
	c.expectAlive(second, c.half)
	c.expectHolder(second, c.first)
}

// usedFor is for how long a connection may still be in use, to the successor, when its client has the answer: until the goroutine that
// has written that waits for the next request. On a busy machine it has to wait for its turn.
const usedFor = 50 * time.Millisecond * slowdown

// buryUsed takes out the connections that died with a successor because it was in the middle of them: those that it had answered
// at that moment, or just before, and the one whose request was under way. It returns how many.
func (c *cell) buryUsed(moment time.Time) (dead int) {
	c.t.Helper()
	var alive []*numberedConn
	underWay := 1
	for _, conn := range c.idle {
		answered := conn.answered
		pid, err := conn.ask()
		switch {
		case err == nil || pid != 0:
			alive = append(alive, conn)
		case answered.After(moment.Add(-usedFor)):
			dead++
		case underWay > 0:
			underWay--
			dead++
		default:
			c.t.Errorf("want no connection dead that was answered %v before, have %v", moment.Sub(answered), err)
		}
	}
	c.idle = alive
	return dead
}

// expectAlive asks each connection.
func (c *cell) expectAlive(pid int, conns []*numberedConn) {
	c.t.Helper()
	for i, conn := range conns {
		if have, err := conn.ask(); err != nil {
			c.t.Errorf("connection %d of %d: %v", i, len(conns), err)
		} else if pid != 0 && have != pid {
			c.t.Errorf("connection %d of %d: want an answer of pid %d, have %d", i, len(conns), pid, have)
		}
	}
}

// finishHalf has the requests answered that were under way all the time.
func (c *cell) finishHalf(pid int) {
	c.t.Helper()
	for _, conn := range append(c.half, c.slow) {
		if conn != c.slow {
			if _, err := fmt.Fprint(conn, "st: test\r\n\r\n"); err != nil {
				c.t.Error(err)
			}
			conn.asked++
		}
		if have, err := conn.answer(); err != nil || pid != 0 && have != pid {
			c.t.Errorf("request under way: want an answer of pid %d, have %d, %v", pid, have, err)
		}
	}
}

// expectOneReader holds the kernel's view against it: no two processes wait for one connection.
func (c *cell) expectOneReader(one, other int) {
	c.t.Helper()
	ones, others := polled(one), polled(other)
	for _, inode := range serverSockets(c.t, append(c.idle, c.fresh...)) {
		if ones[inode] && others[inode] {
			c.t.Errorf("socket %d: both processes read it", inode)
		}
	}
}

// expectHolder expects one process to have every connection that lives, and the other none.
func (c *cell) expectHolder(one, other int) {
	c.t.Helper()
	conns := append(c.idle, c.fresh...)
	ones, others := held(one), held(other)
	for i, inode := range serverSockets(c.t, conns) {
		if !conns[i].dead && (!ones[inode] || others[inode]) {
			c.t.Errorf("socket %d: want it with pid %d only, have it there %v, with pid %d %v", inode, one, ones[inode], other, others[inode])
		}
	}
}

// numberedConn is a client whose requests are numbered.
type numberedConn struct {
	net.Conn
	reader *bufio.Reader
	asked  int
	dead   bool

	answered time.Time // the last request
}

func dialNumbered(t *testing.T, address string) *numberedConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &numberedConn{Conn: conn, reader: bufio.NewReader(conn)}
}

func (c *numberedConn) mustAsk(t *testing.T) {
	t.Helper()
	if _, err := c.ask(); err != nil {
		t.Fatal(err)
	}
}

// ask makes the next request, and returns who answered.
func (c *numberedConn) ask() (pid int, err error) {
	if c.dead {
		return 0, net.ErrClosed
	}
	c.asked++
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "GET /?n=%d HTTP/1.1\r\nHost: test\r\n\r\n", c.asked); err != nil {
		c.dead = true
		return 0, err
	}
	return c.answer()
}

// answer reads the answer to the last request.
func (c *numberedConn) answer() (pid int, err error) {
	defer func() { c.dead = c.dead || err != nil }()
	_ = c.SetDeadline(time.Now().Add(patience))
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	var generation int
	if _, err := fmt.Sscanf(string(body), "generation %d pid %d", &generation, &pid); err != nil {
		return 0, fmt.Errorf("%q: %w", body, err)
	}
	if want := fmt.Sprintf("request %d\n", c.asked); c.asked > 0 && !strings.HasSuffix(string(body), want) {
		return pid, fmt.Errorf("want the answer to %q, have %q", want, body)
	}
	if response.Close {
		return pid, errors.New("the end of the connection was announced")
	}
	c.answered = time.Now()
	return pid, nil
}

// toucher makes requests on some connections, one after the other.
type toucher struct {
	quit chan struct{}
	lost chan int
}

func (c *cell) touch(conns []*numberedConn) *toucher {
	t := &toucher{quit: make(chan struct{}), lost: make(chan int, 1)}
	go func() {
		lost := 0
		for i := 0; ; i++ {
			select {
			case <-t.quit:
				t.lost <- lost
				return
			case <-time.After(5 * time.Millisecond): // a rate
			}
			conn := conns[i%len(conns)]
			if conn.dead {
				continue
			}
			if _, err := conn.ask(); err != nil {
				lost++
			}
		}
	}()
	return t
}

// stop returns how many connections died.
func (t *toucher) stop() int {
	close(t.quit)
	return <-t.lost
}

// newcomers connect all the time, and note how long nobody was answered.
type newcomers struct {
	quit    chan struct{}
	done    chan struct{}
	mu      sync.Mutex
	last    time.Time     // an answer
	longest time.Duration // without one
	by      atomic.Int64  // the pid of the last
	changed chan struct{}
}

func (c *cell) sendNewcomers() *newcomers {
	n := &newcomers{quit: make(chan struct{}), done: make(chan struct{}), last: time.Now(), changed: make(chan struct{}, 1)}
	go func() {
		defer close(n.done)
		var all sync.WaitGroup
		defer all.Wait()
		next := time.NewTicker(50 * time.Millisecond)
		defer next.Stop()
		for {
			select {
			case <-n.quit:
				return
			case <-next.C:
			}
			all.Go(func() { n.connect(c.address) })
		}
	}()
	return n
}

// connect is one of them. It may come to a process that dies.
func (n *newcomers) connect(address string) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return
	}
	defer conn.Close()
	numbered := &numberedConn{Conn: conn, reader: bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		return
	}
	pid, err := numbered.answer()
	if err != nil && pid == 0 {
		return
	}
	now := time.Now()
	n.mu.Lock()
	n.longest = max(n.longest, now.Sub(n.last))
	n.last = now
	n.mu.Unlock()
	n.by.Store(int64(pid))
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// awaitAnswer waits for an answer of one process.
func (n *newcomers) awaitAnswer(t *testing.T, pid int) {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for n.by.Load() != int64(pid) {
		select {
		case <-n.changed:
		case <-late.C:
			t.Fatalf("pid %d answers no new connection", pid)
		}
	}
}

// stop checks what is promised.
func (n *newcomers) stop(t *testing.T) {
	t.Helper()
	close(n.quit)
	<-n.done
	if limit := answerWithin * slowdown; n.longest > limit {
		t.Errorf("new connections: want an answer within %v, have none for %v", limit, n.longest)
	}
}
