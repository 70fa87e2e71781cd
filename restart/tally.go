package restart

import (
	"time"

	"github.com/segue-go/segue/handoff"
)

// tally counts what became of the connections that were to move. One goroutine uses it.
type tally struct {
	offered   int
	adopted   int
	refused   map[handoff.Reason]int
	takenBack int
	lost      int
	residual  int       // bytes
	pauses    pauses    // from out of this server to granted to the next
	first     time.Time // when the first was offered
	last      time.Time // when the last was granted
}

// maxReasons bounds how many reasons are told apart, maxReason their length: the successor may make them up.
const (
	maxReasons = 16
	maxReason  = 32
)

func (t *tally) offer(c *moving) {
	if t.first.IsZero() {
		t.first = time.Now()
	}
	t.offered++
	t.residual += len(c.Residual)
}

func (t *tally) adopt(granted []moving) {
	if len(granted) == 0 {
		return
	}
	t.adopted += len(granted)
	t.last = time.Now()
	for _, c := range granted {
		t.pauses.add(t.last.Sub(c.At))
	}
}

func (t *tally) refuse(reason handoff.Reason) {
	if t.refused == nil {
		t.refused = make(map[handoff.Reason]int)
	}
	if _, known := t.refused[reason]; reason == "" || len(reason) > maxReason || !known && len(t.refused) >= maxReasons {
		reason = handoff.ReasonFailed
	}
	t.refused[reason]++
}

// took is how long the moving took.
func (t *tally) took() time.Duration {
	if t.last.IsZero() {
		return 0
	}
	return t.last.Sub(t.first)
}
