package restart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/listener"
)

func TestRecordGoesThroughPhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecord(7)
		want := Report{Generation: 7, Started: time.Now()}
		for _, phase := range []struct {
			of, expected *time.Duration
			took         time.Duration
		}{
			{&r.report.Preparing, &want.Preparing, 2 * time.Second},
			{&r.report.Starting, &want.Starting, 3 * time.Second},
			{&r.report.Probation, &want.Probation, 5 * time.Second},
			{&r.report.Draining, &want.Draining, 7 * time.Second},
		} {
			r.enter(phase.of)
			for range 2 { // asking in the middle changes nothing
				time.Sleep(phase.took / 2)
				*phase.expected += phase.took / 2
				want.Total += phase.took / 2
				if have := r.snapshot(); !reflect.DeepEqual(want, have) {
					t.Errorf("want %+v\nhave %+v", want, have)
				}
			}
		}
	})
}

func TestRecordCountsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRecord(1), &mover{}
		r.count(nil) // a successor that takes none
		if have := r.snapshot(); have.Offered != 0 || have.Moving != 0 || have.PauseMax != 0 || have.Refused != nil {
			t.Errorf("no connections: have %+v", have)
		}
		batch := make([]moving, 100)
		for i := range batch {
			batch[i].Detached = &listener.Detached{At: time.Now(), Residual: make([]byte, i%2)}
			m.tally.offer(&batch[i])
		}
		time.Sleep(20 * time.Millisecond)
		m.tally.adopt(batch[:50])
		m.tally.adopt(nil)
		time.Sleep(20 * time.Millisecond)
		m.tally.adopt(batch[50:98])
		m.tally.refuse(handoff.ReasonKind)
		m.tally.refuse(handoff.ReasonDescriptors)
		time.Sleep(time.Second)
		r.count(m)
		have := r.snapshot()
		for _, p := range []*time.Duration{&have.PauseP50, &have.PauseP99} {
			*p = p.Round(5 * time.Millisecond)
		}
		want := Report{
			Generation: 1, Started: have.Started, Preparing: have.Preparing, Total: have.Total, Moving: 40 * time.Millisecond,
			Offered: 100, Adopted: 98, Residual: 50, Refused: map[handoff.Reason]int{handoff.ReasonKind: 1, handoff.ReasonDescriptors: 1},
			PauseP50: 20 * time.Millisecond, PauseP99: 40 * time.Millisecond, PauseMax: 40 * time.Millisecond,
		}
		if !reflect.DeepEqual(want, have) {
			t.Errorf("want %+v\nhave %+v", want, have)
		}
		have.Refused[handoff.ReasonKind] = 99
		if later := r.snapshot(); later.Refused[handoff.ReasonKind] != 1 {
			t.Error("who has a report can change the next one")
		}
	})
}

// The words for reasons come from the other side.
func TestInvariant7ReasonsAreBounded(t *testing.T) {
	var m tally
	for i := range 1000 {
		m.refuse(handoff.Reason(fmt.Sprint("reason ", i)))
	}
	m.refuse(handoff.Reason(strings.Repeat("x", 1<<20)))
	m.refuse("")
	sum := 0
	for reason, n := range m.refused {
		if len(reason) > maxReason {
			t.Errorf("a reason of %d bytes", len(reason))
		}
		sum += n
	}
	if len(m.refused) > maxReasons+1 || sum != 1002 {
		t.Errorf("want 1002 of at most %d reasons, have %d of %d", maxReasons+1, sum, len(m.refused))
	}
}

// Every figure is in the line.
func TestReportIsOneLine(t *testing.T) {
	var have bytes.Buffer
	report := &Report{
		Generation: 3, Successor: 4711, Err: ErrRolledBack, Started: time.Now(),
		Preparing: 1, Starting: 2, Probation: 3, Draining: 4, Total: 10, Moving: 5,
		Offered: 11, Adopted: 12, Refused: map[handoff.Reason]int{"kind": 13, "failed": 14}, Residual: 15,
		TakenBack: 16, Lost: 17, Drained: 18, Cut: 19, PauseP50: 20, PauseP99: 21, PauseMax: 22,
	}
	log := slog.New(slog.NewJSONHandler(&have, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}))
	log.LogAttrs(t.Context(), slog.LevelInfo, "upgraded", report.attributes()...)
	want := `{"msg":"upgraded","generation":3,"successor":4711,"error":"upgrade rolled back",` +
		`"preparing":1,"starting":2,"probation":3,"draining":4,"total":10,"moving":5,` +
		`"offered":11,"adopted":12,"refused":{"failed":14,"kind":13},"residual":15,"taken_back":16,"lost":17,"drained":18,"cut":19,` +
		`"pause_p50":20,"pause_p99":21,"pause_max":22}` + "\n"
	if have.String() != want {
		t.Errorf("want %s\nhave %s", want, have.String())
	}
	var figures map[string]any
	if err := json.Unmarshal(have.Bytes(), &figures); err != nil {
		t.Fatal(err)
	}
	// One field, Started, is the time of another line; msg is none.
	if want, have := reflect.TypeFor[Report]().NumField()-1, len(figures)-1; want != have {
		t.Errorf("want %d figures, have %d", want, have)
	}
}
