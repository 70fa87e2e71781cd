package restart

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segue-go/segue/handoff"
)

// MaxCounters is how many counters a generation may have, those included that its predecessors had and nobody asked for.
const MaxCounters = 1024

const (
	// countingInterval is how often a generation that drains tells its successor what it has counted.
	countingInterval = 100 * time.Millisecond
	// maxCountedNames is how many bytes the names in one COUNTED may have. A frame of that size is one buffer to the kernel
	// (unix(7), SOCK_STREAM): it is taken whole or not at all, so that a successor that does not read cannot make this side
	// leave half of one on the stream, before a GRANT.
	maxCountedNames = 16 << 10
	// lateTimeout is how long a successor that has not taken a message in time is waited for with the next ones.
	lateTimeout = 10 * time.Millisecond
)

// ErrCounter says that a counter's name is empty, too long, or one more than MaxCounters.
var ErrCounter = errors.New("invalid counter")

// Counter is a number that only grows, and that goes on growing in the next generation. It is safe for concurrent use and
// allocates nothing.
//
// A successor's counter begins with the value that its predecessor's had at the start of the upgrade. What the predecessor
// counts after that, the successor is told with each connection that moves; once it is committed 100 ms later at most; and for
// the last time when the predecessor's actors have returned. From then on it is the exact sum of what all generations have counted. Within one
// generation a counter never decreases, nor does it from what was seen over a connection to what is seen over the same
// connection when it has moved.
//
// What is lost: what a successor has counted that is rolled back (its predecessor goes on with its own value, which over a
// connection that comes back looks like a step back); what a
// predecessor that is killed, and a successor that takes over on probation because of it, had not been told yet; what a
// successor that has not read for 5 s, and still does not when its predecessor ends, was not told; what is
// counted by goroutines that outlive the actors; and in a service that is stopped while two generations run, what the
// older one counts from then on. A successor of an older version of this package begins at 0.
type Counter struct {
	value atomic.Uint64
	told  uint64 // by the predecessor: its share in value
}

// Add counts n. A counter that has reached the largest value stays there.
func (c *Counter) Add(n uint64) {
	for {
		// A sum that wraps would be a step back, which a successor takes for a broken predecessor.
		value := c.value.Load()
		sum := value + n
		if sum < value {
			sum = math.MaxUint64
		}
		if c.value.CompareAndSwap(value, sum) {
			return
		}
	}
}

// Value returns what was counted, by this generation and those before it.
func (c *Counter) Value() uint64 { return c.value.Load() }

// Counter returns the counter of that name; the same one each time. It has the predecessor's value if there is one, and 0
// else. A value that no generation has asked for yet is passed on all the same, so that a rollback to an older program
// loses nothing. It may be called before and after Run began. It fails with ErrCounter.
func (g *Generation) Counter(name string) (*Counter, error) {
	return g.counters.named(name)
}

const kindCounter = "counter"

// counters is a generation's counters by name.
type counters struct {
	mu     sync.Mutex // guards byName and Counter.told
	byName map[string]*Counter
}

func (c *counters) named(name string) (*Counter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.namedLocked(name)
}

func (c *counters) namedLocked(name string) (*Counter, error) {
	if counter, known := c.byName[name]; known {
		return counter, nil
	}
	if name == "" || len(name) > handoff.MaxName || len(c.byName) >= MaxCounters {
		return nil, fmt.Errorf("%w: %.64q after %d others", ErrCounter, name, len(c.byName))
	}
	if c.byName == nil {
		c.byName = make(map[string]*Counter)
	}
	counter := &Counter{}
	c.byName[name] = counter
	return counter, nil
}

// inherit takes a counter that was offered. Its errors are handoff.ErrOffer.
func (c *counters) inherit(entry *handoff.Entry) error {
	if len(entry.Data) != 8 || entry.Size != 0 {
		return fmt.Errorf("%w: counter %.64q: %w: %d bytes of data, want 8", handoff.ErrOffer, entry.Name, ErrCounter, len(entry.Data))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, again := c.byName[entry.Name]; again {
		return fmt.Errorf("%w: counter %.64q: %w: it came already", handoff.ErrOffer, entry.Name, ErrCounter)
	}
	counter, err := c.namedLocked(entry.Name)
	if err != nil {
		return fmt.Errorf("%w: %w", handoff.ErrOffer, err)
	}
	counter.goOn(binary.BigEndian.Uint64(entry.Data))
	return nil
}

// goOn adds what the predecessor has counted since it was heard of last.
func (c *Counter) goOn(total uint64) {
	c.Add(total - c.told)
	c.told = total
}

// hear takes what the predecessor counts while it drains. It fails if a total goes back. A counter that is one too many
// here is none.
func (c *counters) hear(message *handoff.Counted, log *slog.Logger) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, total := range message.Totals {
		counter, err := c.namedLocked(total.Name)
		if err != nil {
			log.Warn("cannot go on with the predecessor's counter", "name", total.Name, "value", total.Value, "error", err)
			continue
		}
		if total.Value < counter.told {
			return fmt.Errorf("%w: total %d of counter %.64q, after %d", handoff.ErrUnexpectedMessage, total.Value, total.Name, counter.told)
		}
		counter.goOn(total.Value)
	}
	return nil
}

// disinherit forgets what a predecessor left, before another one is asked.
func (c *counters) disinherit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byName = nil
}

// entries lists the counters that have counted something.
func (c *counters) entries() []handoff.Entry {
	var entries []handoff.Entry
	for _, total := range c.totals() {
		value := binary.BigEndian.AppendUint64(nil, total.Value)
		entries = append(entries, handoff.Entry{Kind: kindCounter, Name: total.Name, Data: value})
	}
	return entries
}

// totals lists the values that are not 0, in a stable order.
func (c *counters) totals() []handoff.Total {
	c.mu.Lock()
	defer c.mu.Unlock()
	totals := make([]handoff.Total, 0, len(c.byName))
	for name, counter := range c.byName {
		if value := counter.Value(); value > 0 {
			totals = append(totals, handoff.Total{Name: name, Value: value})
		}
	}
	slices.SortFunc(totals, func(a, b handoff.Total) int { return strings.Compare(a.Name, b.Name) })
	return totals
}

// counting tells the successor what its predecessor counts: on probation with each connection that moves, and from the commit on
// (start) until finish from time to time. Nil tells nothing, to a successor that would not understand.
type counting struct {
	counters *counters
	send     func(context.Context, handoff.Message) error
	log      *slog.Logger

	mu   sync.Mutex // keeps what is told in order
	told map[string]uint64
	late bool  // the successor did not take the last message in time
	err  error // nothing is told any more

	stop chan struct{}
	done chan struct{}
}

func newCounting(counters *counters, session *handoff.Session, log *slog.Logger) *counting {
	return &counting{
		counters: counters, send: session.Send, log: log,
		told: make(map[string]uint64), stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// start is called once, at the commit.
func (c *counting) start() {
	if c != nil {
		go c.run()
	}
}

func (c *counting) run() {
	defer close(c.done)
	next := time.NewTicker(countingInterval)
	defer next.Stop()
	for {
		c.tell(moveTimeout)
		select {
		case <-next.C:
		case <-c.stop:
			return
		}
	}
}

// errCountedLate is why a message was not sent. Nothing of it was (see maxCountedNames): another one may be.
var errCountedLate = errors.New("successor does not read")

// tell sends what has changed. The timeout is for all of it, and nothing else ends it: what is never told is lost. Connections wait for
// it, so a successor that was late once is tried, and not waited for, until it reads again.
func (c *counting) tell(timeout time.Duration) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	if c.late {
		timeout = min(timeout, lateTimeout)
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, errCountedLate)
	defer cancel()
	totals := slices.DeleteFunc(c.counters.totals(), func(total handoff.Total) bool { return c.told[total.Name] == total.Value })
	for len(totals) > 0 {
		var counted handoff.Counted
		counted.Totals, totals = cutTotals(totals)
		if err := c.send(ctx, &counted); err != nil {
			c.failed(err)
			return
		}
		c.late = false
		for _, total := range counted.Totals {
			c.told[total.Name] = total.Value
		}
	}
}

// failed notes why a message was not sent. The caller holds mu.
func (c *counting) failed(err error) {
	if errors.Is(err, errCountedLate) {
		if !c.late {
			c.log.Warn("successor is not told in time what is counted here", "error", err)
		}
		c.late = true
		return
	}
	if c.err = err; !isGone(err) {
		c.log.Warn("successor is not told any more what is counted here", "error", err)
	}
}

// cutTotals divides what fits into one COUNTED from the rest.
func cutTotals(totals []handoff.Total) (first, rest []handoff.Total) {
	names := 0
	for i, total := range totals {
		const value = 16 // bytes at most, with CBOR's own
		if names += len(total.Name) + value; i > 0 && names > maxCountedNames || i == handoff.MaxTotals {
			return totals[:i], totals[i:]
		}
	}
	return totals, nil
}

// finish tells for the last time. All that is to be told has been counted.
func (c *counting) finish() {
	if c == nil {
		return
	}
	close(c.stop)
	<-c.done
	c.tell(byeTimeout)
}
