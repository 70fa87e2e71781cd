package load

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Report is what a crowd has met.
type Report struct {
	Requests int64 // requests that ended, well or badly
	Failed   int64 // those that ended badly, each for one of these reasons:
	Refused  int64 // no connection was to be had
	Closed   int64 // the connection ended, not announced, before a byte of the answer
	Aborted  int64 // the connection ended within the answer
	TimedOut int64 // no connection, or no complete answer, within Config.Timeout
	Wrong    int64 // a status other than 200, an echo that differs, bytes out of turn, or no HTTP/1.1

	// Reconnects counts the connections that clients replaced because the server had announced their end. They are no
	// failures. Fresh clients have none.
	Reconnects int64

	// Pids counts the GET answers of each generation, by the line with which examples/httpserver answers "/",
	// "generation 2 pid 4711". Other answers are not counted here.
	Pids map[string]int64

	// The pause of one client at one upgrade is explained at Mark. These are over all clients and all upgrades; Pauses is
	// how many that were.
	Pauses                       int64
	PauseP50, PauseP99, PauseMax time.Duration

	// From the dial, if one was needed, or from the sending of the request to the last byte of the answer.
	LatencyP50, LatencyP99, LatencyMax time.Duration

	Errors []string // the first 20 failures
}

// Answers is how many GET answers came from a process.
func (r Report) Answers(pid int) int64 {
	sum := int64(0)
	for line, n := range r.Pids {
		if strings.HasSuffix(line, " pid "+strconv.Itoa(pid)) {
			sum += n
		}
	}
	return sum
}

// tally is the account that all clients of a Load write to.
type tally struct {
	good       atomic.Int64
	failed     [causes]atomic.Int64
	reconnects atomic.Int64
	latency    histogram
	pause      histogram

	mu     sync.Mutex
	pids   map[string]*atomic.Int64
	errors []string
}

const (
	maxErrors = 20
	maxPids   = 1 << 14
	maxAnswer = 64 // bytes of a line that names a generation
)

func (t *tally) answered(latency time.Duration) {
	t.good.Add(1)
	t.latency.add(latency)
}

// fail counts a failure. It asks for its description only as long as there is room for it.
func (t *tally) fail(err error, describe func() string) {
	f := failure{cause: wrong}
	errors.As(err, &f)
	t.failed[f.cause].Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.errors) < maxErrors {
		t.errors = append(t.errors, describe())
	}
}

// generation is the answer of examples/httpserver to "/".
var generation = regexp.MustCompile(`^generation [0-9]+ pid [0-9]+\n$`)

// counter returns the counter for an answer, nil if it names no generation.
func (t *tally) counter(body []byte) *atomic.Int64 {
	if len(body) > maxAnswer || !generation.Match(body) {
		return nil
	}
	line := string(bytes.TrimSpace(body))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pids[line] == nil && len(t.pids) < maxPids {
		if t.pids == nil {
			t.pids = make(map[string]*atomic.Int64)
		}
		t.pids[line] = new(atomic.Int64)
	}
	return t.pids[line]
}

// report is the account as it stands. Clients may still write to it.
func (t *tally) report() Report {
	r := Report{Reconnects: t.reconnects.Load()}
	for c, into := range map[cause]*int64{
		refused: &r.Refused, closed: &r.Closed, aborted: &r.Aborted, timedOut: &r.TimedOut, wrong: &r.Wrong,
	} {
		*into = t.failed[c].Load()
		r.Failed += *into
	}
	r.Requests = t.good.Load() + r.Failed

	at, largest, count := t.pause.quantiles(0.5, 0.99)
	r.PauseP50, r.PauseP99, r.PauseMax, r.Pauses = at[0], at[1], largest, count
	at, largest, _ = t.latency.quantiles(0.5, 0.99)
	r.LatencyP50, r.LatencyP99, r.LatencyMax = at[0], at[1], largest

	t.mu.Lock()
	defer t.mu.Unlock()
	r.Errors = slices.Clone(t.errors)
	r.Pids = make(map[string]int64, len(t.pids))
	for line, n := range t.pids {
		r.Pids[line] = n.Load()
	}
	return r
}

// answers counts the answers that one client gets. It remembers the last, so that only a change of generation takes the
// tally's lock.
type answers struct {
	tally   *tally
	last    []byte
	counter *atomic.Int64
}

func (a *answers) count(body []byte) {
	if a.last == nil || !bytes.Equal(body, a.last) {
		a.last, a.counter = body, a.tally.counter(body)
	}
	if a.counter != nil {
		a.counter.Add(1)
	}
}
