package restart

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/segue-go/segue/handoff"
)

// Report is what became of an upgrade, as its predecessor sees it. Each is a snapshot: what goes on is in a later one.
type Report struct {
	Generation int   // the predecessor's number
	Successor  int   // process id; 0 if there was none, or it has not said HELLO
	Err        error // why the upgrade failed, as Generation.Upgrade returns it; nil if it goes on, or has succeeded

	// The upgrade goes through phases, one after the other. Total is their sum, and each of them is 0 if it was not reached. A failed
	// upgrade ends in the phase that it failed in, when the successor is dead and this generation serves.
	Started   time.Time
	Preparing time.Duration // waiting for the predecessor's own predecessor to drain, Options.Preflight
	Starting  time.Duration // from the successor's start (of a takeover: from its coming) to its READY
	Probation time.Duration // to the commit, and the successor's knowledge of it
	Draining  time.Duration // to the end of the last connection
	Total     time.Duration

	// Moving is the time from the first connection that was offered to the last that was granted, somewhere in Probation and Draining.
	Moving time.Duration

	// Connections that were to move. What was offered and was neither adopted nor refused came back without an answer. One that came
	// back may be offered again, and counts again.
	Offered  int
	Adopted  int                    // and granted: they were the successor's
	Refused  map[handoff.Reason]int // by the successor; nil if none was
	Residual int                    // bytes that had been read ahead, and traveled with them

	// At a rollback, of those that were adopted: those that are served here again, and those that are closed, because the successor was
	// in the middle of a request. (What had ended there before is not counted, nor what the successor had accepted itself, which ends with
	// it.)
	TakenBack int
	Lost      int

	// From the commit on: connections that ended in the predecessor, by themselves and by the end of Options.Drain.
	Drained int
	Cut     int

	// How long nobody served the connections that were adopted: quantiles, at most 1/32 off, and the longest.
	PauseP50 time.Duration
	PauseP99 time.Duration
	PauseMax time.Duration
}

// attributes are all figures for one log line. Durations are ns in JSON, as slog has it.
func (r *Report) attributes() []slog.Attr {
	attributes := []slog.Attr{slog.Int("generation", r.Generation), slog.Int("successor", r.Successor)}
	if r.Err != nil {
		attributes = append(attributes, slog.Any("error", r.Err))
	}
	var refused []any
	for _, reason := range slices.Sorted(maps.Keys(r.Refused)) {
		refused = append(refused, slog.Int(string(reason), r.Refused[reason]))
	}
	return append(attributes,
		slog.Duration("preparing", r.Preparing), slog.Duration("starting", r.Starting), slog.Duration("probation", r.Probation),
		slog.Duration("draining", r.Draining), slog.Duration("total", r.Total), slog.Duration("moving", r.Moving),
		slog.Int("offered", r.Offered), slog.Int("adopted", r.Adopted), slog.Group("refused", refused...), slog.Int("residual", r.Residual),
		slog.Int("taken_back", r.TakenBack), slog.Int("lost", r.Lost), slog.Int("drained", r.Drained), slog.Int("cut", r.Cut),
		slog.Duration("pause_p50", r.PauseP50), slog.Duration("pause_p99", r.PauseP99), slog.Duration("pause_max", r.PauseMax),
	)
}

// record is a Report in the making. One goroutine uses it: the one that upgrades, and after it that of Run.
type record struct {
	report Report
	phase  *time.Duration // of report: the one under way
	since  time.Time      // what is not counted of it yet
	ended  int64          // connections that had ended here before the commit
}

func newRecord(generation int) *record {
	now := time.Now()
	r := &record{report: Report{Generation: generation, Started: now}, since: now}
	r.phase = &r.report.Preparing
	return r
}

// enter ends the phase under way.
func (r *record) enter(phase *time.Duration) {
	now := time.Now()
	*r.phase += now.Sub(r.since)
	r.report.Total += now.Sub(r.since)
	r.phase, r.since = phase, now
}

// count notes what became of the connections that m moves; nil if none does.
func (r *record) count(m *mover) {
	if m == nil {
		return
	}
	t, to := &m.tally, &r.report
	to.Moving, to.Offered, to.Adopted, to.Residual, to.TakenBack, to.Lost = t.took(), t.offered, t.adopted, t.residual, t.takenBack, t.lost
	to.Refused = maps.Clone(t.refused)
	to.PauseP50, to.PauseP99, to.PauseMax = t.pauses.quantile(.5), t.pauses.quantile(.99), t.pauses.largest
}

// snapshot is the report as of now.
func (r *record) snapshot() Report {
	r.enter(r.phase)
	snapshot := r.report
	snapshot.Refused = maps.Clone(snapshot.Refused)
	return snapshot
}
