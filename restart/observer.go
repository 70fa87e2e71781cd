package restart

import (
	"context"
	"log/slog"
	"maps"
)

// Observer is told of upgrades, to feed metrics, say. What is nil is not called. The others are called one after the other, each with
// a Report of its own, and must not block: who calls them has clients waiting, and a process that it is to ask whether it is alive.
type Observer struct {
	// In the predecessor, on the goroutine that upgrades. Each UpgradeStarted is followed by one UpgradeFailed (after a rollback,
	// Report.Err is ErrRolledBack) or one Committed.
	UpgradeStarted func(*Report) // its turn has come
	SuccessorReady func(*Report) // it is to be granted the listeners now
	UpgradeFailed  func(*Report) // and this generation serves
	Committed      func(*Report) // connections still move and end

	// In the predecessor after Committed, on the goroutine of Run, which then returns: nothing is left, and the report is final.
	Drained func(*Report)

	// In the successor, on the goroutine that listens to the predecessor: that many connections more are served here.
	Adopted func(connections int)
}

// tell calls a function of an Observer's.
func tell(f func(*Report), report Report) {
	if f != nil {
		report.Refused = maps.Clone(report.Refused)
		f(&report)
	}
}

// recorded is one upgrade, and what is told about it.
func (g *Generation) recorded(upgrade func(*record) error) *Report {
	r := newRecord(g.number)
	tell(g.options.Observer.UpgradeStarted, r.snapshot())
	if r.report.Err = upgrade(r); r.report.Err != nil {
		report := r.snapshot()
		g.log.LogAttrs(context.Background(), slog.LevelError, "upgrade failed", report.attributes()...)
		tell(g.options.Observer.UpgradeFailed, report)
		return &report
	}
	r.enter(&r.report.Draining)
	r.ended = g.ended()
	g.record = r
	report := r.snapshot()
	tell(g.options.Observer.Committed, report)
	return &report
}

// ended is how many connections were served here and have ended here, whoever ended them.
func (g *Generation) ended() int64 {
	return int64(g.sockets.Ended()+g.raw.strays.Ended()) - g.raw.unserved.Load()
}

// ready notes that the candidate has said READY.
func (a *attempt) ready() {
	a.record.report.Successor = a.candidate.pid()
	a.record.enter(&a.record.report.Probation)
	tell(a.options.Observer.SuccessorReady, a.record.snapshot())
}

// settle notes how the attempt has ended.
func (a *attempt) settle() {
	a.record.report.Successor = a.candidate.pid()
	a.record.count(a.mover)
}

// drained tells of a handover that is through.
func (g *Generation) drained() {
	r, to := g.record, &g.record.report
	r.count(g.mover())
	cut := g.cut.Load()
	to.Cut, to.Drained = int(cut), max(int(g.ended()-r.ended-cut), 0)
	if mover := g.mover(); mover != nil {
		to.Cut += int(mover.cut.Load()) // ended does not know of these
	}
	report := r.snapshot()
	g.log.LogAttrs(context.Background(), slog.LevelInfo, "upgraded", report.attributes()...)
	tell(g.options.Observer.Drained, report)
}
