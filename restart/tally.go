package restart

import (
	"maps"
	"slices"
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
	residual  int             // bytes
	pauses    []time.Duration // from out of this server to granted to the next
	first     time.Time       // when the first was offered
	last      time.Time       // when the last was granted
}

func (t *tally) offer(c *moving) {
	if t.offered++; t.offered == 1 {
		t.first = time.Now()
	}
	t.residual += len(c.Residual)
}

func (t *tally) adopt(granted []moving) {
	t.adopted += len(granted)
	now := time.Now()
	t.last = now
	for _, c := range granted {
		t.pauses = append(t.pauses, now.Sub(c.At))
	}
}

func (t *tally) refuse(reason handoff.Reason) {
	if t.refused == nil {
		t.refused = make(map[handoff.Reason]int)
	}
	t.refused[reason]++
}

// pause returns a quantile of the pauses, 0 if there were none.
func (t *tally) pause(quantile float64) time.Duration {
	if len(t.pauses) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t.pauses))
	return sorted[int(quantile*float64(len(sorted)-1))]
}

// copy is for readers on other goroutines.
func (t *tally) copy() tally {
	copied := *t
	copied.refused, copied.pauses = maps.Clone(t.refused), slices.Clone(t.pauses)
	return copied
}
