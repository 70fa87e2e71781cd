// Package load is a crowd of strict HTTP/1.1 clients, for the demo and for process tests that have to prove that an
// upgrade harmed nobody.
//
// net/http.Transport repeats a request whose connection died, which is what a user wants and what a judge must not do. The
// clients here speak over a bare net.Conn and repeat nothing. An answer that does not come complete and right is a failure,
// with one way out: a server that says "Connection: close" in an answer may close that connection after it. The client then
// closes it first, dials again for its next request and counts a reconnect. A connection that ends without those words is
// a failure even while it is idle, because the request that was next on it would have been lost.
package load

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config says which clients a Load has. There must be at least one.
type Config struct {
	Addr string // host:port, TCP

	KeepAlive int   // clients that GET Path over one connection each
	Post      int   // clients that POST Body random bytes to /echo over one connection each, and compare the echo
	Body      int64 // bytes of a POST
	Fresh     int   // clients that GET Path over a new connection each time
	Idle      int   // clients that GET Path once at the start and once, over the same connection, when the Load stops

	// Interval is the time from the start of one request of a client to the start of its next; a slow answer delays the
	// next request and causes no burst. Zero means as fast as possible. The clients are spread evenly over it, or over its
	// first second.
	Interval time.Duration
	Path     string        // "/" when empty
	Timeout  time.Duration // for a dial, and for a request with its answer; 10 seconds when zero
}

const (
	maxClients     = 50_000
	maxSpread      = time.Second
	defaultTimeout = 10 * time.Second
)

// complete checks the configuration and fills in what was left out.
func (cfg Config) complete() (Config, error) {
	if cfg.Path == "" {
		cfg.Path = "/"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	counts := []int{cfg.KeepAlive, cfg.Post, cfg.Fresh, cfg.Idle}
	total := 0
	for _, n := range counts {
		if n < 0 || n > maxClients {
			return cfg, fmt.Errorf("load: %d clients of one kind: from 0 to %d are possible", n, maxClients)
		}
		total += n
	}
	switch {
	case cfg.Addr == "":
		return cfg, errors.New("load: no address")
	case total == 0:
		return cfg, errors.New("load: no clients")
	case total > maxClients:
		return cfg, fmt.Errorf("load: %d clients: at most %d are possible", total, maxClients)
	case cfg.Body < 0:
		return cfg, fmt.Errorf("load: body of %d bytes", cfg.Body)
	case cfg.Interval < 0 || cfg.Timeout < 0:
		return cfg, fmt.Errorf("load: negative time: interval %v, timeout %v", cfg.Interval, cfg.Timeout)
	case !strings.HasPrefix(cfg.Path, "/") || strings.ContainsAny(cfg.Path, " \r\n"):
		return cfg, fmt.Errorf("load: path %q is not one of a request line", cfg.Path)
	}
	return cfg, nil
}

// Load is a running crowd. Its figures are over clients of all kinds; for figures by kind, start one Load for each.
type Load struct {
	cfg     Config
	ctx     context.Context // ends dials; without the caller's deadline, which a dial would report as its own
	cancel  context.CancelFunc
	began   time.Time
	clients []*client
	tally   tally
	windows windows

	stop     chan struct{} // closed by Stop
	stopOnce sync.Once
	aborted  atomic.Bool
	running  sync.WaitGroup
	unbind   func() bool // unties the Load from its context
}

// Start starts the clients and returns once each of them has had its first answer, or has failed. The end of ctx, before or
// after that, cuts every connection at once; requests that it cuts are not counted.
func Start(ctx context.Context, cfg Config) (*Load, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	l := &Load{cfg: cfg, began: time.Now(), stop: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	var first sync.WaitGroup
	for _, k := range []struct {
		kind  kind
		count int
	}{{keepAlive, cfg.KeepAlive}, {post, cfg.Post}, {fresh, cfg.Fresh}, {idle, cfg.Idle}} {
		for i := range k.count {
			offset := min(cfg.Interval, maxSpread) * time.Duration(i) / time.Duration(k.count)
			l.clients = append(l.clients, newClient(l, k.kind, i+1, l.began.Add(offset)))
		}
	}
	for _, c := range l.clients {
		first.Add(1)
		l.running.Go(func() { c.run(sync.OnceFunc(first.Done)) })
	}
	l.unbind = context.AfterFunc(ctx, l.abort)
	first.Wait()
	if err := ctx.Err(); err != nil {
		l.running.Wait()
		return nil, fmt.Errorf("load: start: %w", err)
	}
	return l, nil
}

// Mark opens the window of one upgrade and returns the function that closes it. The pause of a client at that upgrade is its
// slowest request, from the dial if it needed one to the last byte of the answer, among those that were under way at some
// time between the two and the first that was answered after. Opening a window closes the one before.
func (l *Load) Mark() (end func()) {
	return l.windows.open(l.clock)
}

// Snapshot is the report so far.
func (l *Load) Snapshot() Report {
	return l.tally.report()
}

// Stop lets each client finish the request under way, lets the idle ones make their last, closes all connections and
// returns the final report. A second Stop returns the same.
func (l *Load) Stop() Report {
	l.stopOnce.Do(func() {
		close(l.stop)
		for _, c := range l.clients {
			c.wake()
		}
	})
	l.running.Wait()
	l.unbind()
	l.cancel()
	return l.tally.report()
}

// abort cuts all connections.
func (l *Load) abort() {
	l.aborted.Store(true)
	l.cancel()
	for _, c := range l.clients {
		c.cut()
	}
}

// clock is the time since the start of the load, which only moves forward.
func (l *Load) clock() time.Duration {
	return time.Since(l.began)
}
