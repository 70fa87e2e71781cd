//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/restart"
)

// loggingObserver writes a line for each thing that it is told.
func loggingObserver(log *slog.Logger) restart.Observer {
	observe := func(event string) func(*restart.Report) {
		return func(report *restart.Report) {
			log.Info("observed", "event", event, "error", report.Err, "report", encodable(report))
		}
	}
	return restart.Observer{
		UpgradeStarted: observe("started"),
		SuccessorReady: observe("ready"),
		UpgradeFailed:  observe("failed"),
		Committed:      observe("committed"),
		Drained:        observe("drained"),
		Adopted:        func(connections int) { log.Info("observed", "event", "adopted", "connections", connections) },
	}
}

// encodable leaves the error out, which JSON cannot bring back.
func encodable(report *restart.Report) (copied restart.Report) {
	if report != nil {
		copied = *report
		copied.Err = nil
	}
	return copied
}

// observed is a line of loggingObserver's.
type observed struct {
	PID         int
	Event       string
	Error       string
	Report      restart.Report
	Connections int
}

func parseObserved(l line) (o observed, isOne bool) {
	if l.Message != "observed" {
		return o, false
	}
	return o, json.Unmarshal([]byte(l.raw), &o) == nil
}

// observed returns what the observer of that process was told so far.
func (s *service) observed(pid int) (all []observed) {
	for _, l := range s.linesAfter(0) {
		if o, isOne := parseObserved(l); isOne && o.PID == pid {
			all = append(all, o)
		}
	}
	return all
}

// awaitObserved waits for an event of a process's observer.
func (s *service) awaitObserved(pid int, event string) (o observed) {
	s.t.Helper()
	s.await(event, func(l line) bool {
		var isOne bool
		o, isOne = parseObserved(l)
		return isOne && o.PID == pid && o.Event == event
	})
	return o
}

// awaitAdopted waits until a process has adopted that many connections, and no more.
func (s *service) awaitAdopted(pid, want int) {
	s.t.Helper()
	adopted := 0
	s.await(fmt.Sprintf("adoption of %d connections", want), func(l line) bool {
		if o, isOne := parseObserved(l); isOne && o.PID == pid {
			adopted += o.Connections
		}
		return adopted >= want
	})
	if adopted != want {
		s.t.Errorf("adopted: want %d, have %d", want, adopted)
	}
}

// events are the names of what was observed, but for adoptions, of which nobody knows how many there are.
func events(all []observed) (names []string) {
	for _, o := range all {
		if o.Event != "adopted" {
			names = append(names, o.Event)
		}
	}
	return names
}

// logged is the line of the log that has all figures of a report.
func (s *service) logged(message string, pid int) (report restart.Report) {
	s.t.Helper()
	l := s.await(message, func(l line) bool { return l.Message == message && l.PID == pid })
	var figures struct {
		Generation, Successor                                   int
		Preparing, Starting, Probation, Draining, Total, Moving time.Duration
		Offered, Adopted, Residual, Lost, Drained, Cut          int
		Refused                                                 map[handoff.Reason]int
		TakenBack                                               int           `json:"taken_back"`
		P50                                                     time.Duration `json:"pause_p50"`
		P99                                                     time.Duration `json:"pause_p99"`
		Max                                                     time.Duration `json:"pause_max"`
	}
	if err := json.Unmarshal([]byte(l.raw), &figures); err != nil {
		s.t.Fatal(err)
	}
	return restart.Report{
		Generation: figures.Generation, Successor: figures.Successor,
		Preparing: figures.Preparing, Starting: figures.Starting, Probation: figures.Probation, Draining: figures.Draining,
		Total: figures.Total, Moving: figures.Moving,
		Offered: figures.Offered, Adopted: figures.Adopted, Refused: figures.Refused, Residual: figures.Residual,
		TakenBack: figures.TakenBack, Lost: figures.Lost, Drained: figures.Drained, Cut: figures.Cut,
		PauseP50: figures.P50, PauseP99: figures.P99, PauseMax: figures.Max,
	}
}

// figures is what of a report does not depend on the clock.
func figures(r restart.Report) restart.Report {
	r.Started = time.Time{}
	r.Preparing, r.Starting, r.Probation, r.Draining, r.Total, r.Moving = 0, 0, 0, 0, 0, 0
	r.PauseP50, r.PauseP99, r.PauseMax = 0, 0, 0
	return r
}

func checkDurations(t *testing.T, r restart.Report) {
	t.Helper()
	if sum := r.Preparing + r.Starting + r.Probation + r.Draining; sum != r.Total {
		t.Errorf("phases: want %v, the total, have %v", r.Total, sum)
	}
	if r.Preparing < 0 || r.PauseP50 < 0 || r.PauseP50 > r.PauseP99 || r.PauseP99 > r.PauseMax || r.PauseMax > r.Total {
		t.Errorf("pauses: have p50 %v, p99 %v, max %v of %v", r.PauseP50, r.PauseP99, r.PauseMax, r.Total)
	}
	if r.Adopted > 0 && (r.Moving <= 0 || r.Moving > r.Probation+r.Draining || r.PauseMax == 0) {
		t.Errorf("moving: have %v of %v and %v, longest pause %v", r.Moving, r.Probation, r.Draining, r.PauseMax)
	}
}

// awaitRead waits until the server has read what these clients have sent. Nothing tells, so it looks each millisecond.
func (s *service) awaitRead(conns []*keptConn) {
	for _, c := range conns {
		for !s.hasRead(c.conn) {
			time.Sleep(time.Millisecond)
		}
	}
}

// dialAll opens connections and begins what each is to be in the middle of.
func (s *service) dialAll(n int, begin string) []*keptConn {
	s.t.Helper()
	conns := make([]*keptConn, n)
	for i := range conns {
		conns[i] = dialKept(s.t, s.address)
		conns[i].ask(0)
		if begin != "" {
			conns[i].write(begin)
		}
	}
	s.awaitRead(conns)
	return conns
}

const (
	halfHeader      = "GET / HTTP/1.1\r\nHo"
	halfLastHeader  = "GET / HTTP/1.1\r\nConnection: close\r\nHo"
	restOfTheHeader = "st: test\r\n\r\n"
)

func TestReportOfAnUpgrade(t *testing.T) {
	const probation, drain = 50 * time.Millisecond, 3 * time.Second
	s := startService(t, config{Probation: probation, Drain: drain})
	first := s.pid()
	idle, ahead := s.dialAll(10, ""), s.dialAll(4, "G")
	busy, last, stuck := s.dialAll(3, halfHeader), s.dialAll(2, halfLastHeader), s.dialAll(2, halfHeader)

	answer := s.upgrade() // a request of its own, which ends in the predecessor after the commit
	second := s.await("second generation", func(l line) bool { return l.Message == "serving" && l.Generation == 2 }).PID
	for _, c := range append(busy, last...) {
		c.write(restOfTheHeader)
		c.answer(first)
	}
	drained := s.awaitObserved(first, "drained")
	want := restart.Report{Generation: 1, Successor: second, Offered: 17, Adopted: 17, Residual: 4, Drained: 3, Cut: 2}
	if have := figures(drained.Report); !reflect.DeepEqual(want, have) {
		t.Errorf("want %+v\nhave %+v", want, have)
	}
	checkDurations(t, drained.Report)
	if drained.Report.Probation < probation || drained.Report.Draining < drain || drained.Report.Starting <= 0 {
		t.Errorf("want at least %v of probation, %v of draining and a start, have %+v", probation, drain, drained.Report)
	}
	line := drained.Report
	line.Started = time.Time{} // it is in another one
	if have := s.logged("upgraded", first); !reflect.DeepEqual(line, have) {
		t.Errorf("want as it was reported\n%+v\nlogged %+v", line, have)
	}

	// What Upgrade returns is the report of the commit.
	all := s.observed(first)
	if want, have := []string{"started", "ready", "committed", "drained"}, events(all); !reflect.DeepEqual(want, have) {
		t.Fatalf("observed: want %v, have %v", want, have)
	}
	committed := all[2].Report
	if answer.Error != "" || !answer.Report.Started.Equal(committed.Started) || !reflect.DeepEqual(figures(committed), figures(answer.Report)) {
		t.Errorf("returned: want %+v\nhave %+v, %s", committed, answer.Report, answer.Error)
	}
	if r := committed; r.Successor != second || r.Cut != 0 || r.Drained != 0 || r.Draining >= drain || r.Adopted > r.Offered || r.Offered > want.Offered {
		t.Errorf("at the commit: have %+v", r)
	}
	if started, ready := all[0].Report, all[1].Report; started.Successor != 0 || started.Starting != 0 ||
		ready.Successor != second || ready.Starting == 0 || ready.Offered != 0 {
		t.Errorf("before the commit: have %+v\nand %+v", started, ready)
	}

	s.awaitAdopted(second, want.Adopted)
	for _, c := range append(idle, busy...) {
		c.ask(second)
	}
	for _, c := range ahead {
		c.write("ET / HTTP/1.1\r\nHost: test\r\n\r\n")
		c.answer(second)
	}
	for _, c := range append(last, stuck...) {
		if _, err := c.reader.ReadByte(); err == nil {
			t.Error("want the end of the connection, have more")
		}
	}
}

func TestReportOfARollback(t *testing.T) {
	s := startService(t, config{Probation: patience, Drain: patience})
	first := s.pid()
	idle, lost := s.dialAll(10, ""), s.dialAll(3, "")
	answers := make(chan upgradeAnswer, 1)
	go func() {
		var answer upgradeAnswer
		body, err := s.tryGet("/upgrade")
		if err == nil {
			err = json.Unmarshal([]byte(body), &answer)
		}
		if err != nil {
			t.Error(err)
		}
		answers <- answer
	}()
	second := s.await("probation", func(l line) bool { return l.Message == "serving on probation" && l.Generation == 2 }).PID
	s.awaitAdopted(second, len(idle)+len(lost))
	idle[0].ask(second)
	for _, c := range lost { // the successor has them in the middle of a request when it dies
		c.write(halfHeader)
	}
	s.awaitRead(lost)
	s.signal(second, syscall.SIGKILL)

	failed := s.awaitObserved(first, "failed")
	want := restart.Report{Generation: 1, Successor: second, Offered: 13, Adopted: 13, TakenBack: 10, Lost: 3}
	if have := figures(failed.Report); !reflect.DeepEqual(want, have) {
		t.Errorf("want %+v\nhave %+v", want, have)
	}
	checkDurations(t, failed.Report)
	if failed.Report.Probation <= 0 || failed.Report.Draining != 0 {
		t.Errorf("want its end on probation, have %+v", failed.Report)
	}
	if rolledBack := restart.ErrRolledBack.Error(); !strings.HasPrefix(failed.Error, rolledBack) {
		t.Errorf("want %q, have %q", rolledBack, failed.Error)
	}
	line := failed.Report
	line.Started = time.Time{}
	if have := s.logged("upgrade failed", first); !reflect.DeepEqual(line, have) {
		t.Errorf("want as it was reported\n%+v\nlogged %+v", line, have)
	}
	if answer := <-answers; answer.Error != failed.Error || !reflect.DeepEqual(answer.Report, failed.Report) {
		t.Errorf("returned: want %+v\nhave %+v", failed, answer)
	}
	if want, have := []string{"started", "ready", "failed"}, events(s.observed(first)); !reflect.DeepEqual(want, have) {
		t.Errorf("observed: want %v, have %v", want, have)
	}
	for _, c := range idle {
		c.ask(first)
	}
}

func TestReportOfRefusedConnections(t *testing.T) {
	s := startService(t, config{Probation: -1, Drain: patience})
	first := s.pid()
	conns := s.dialAll(5, "")
	s.installImpostor("refuses-connections")
	s.signal(first, syscall.SIGHUP)
	second := s.await("handover", func(l line) bool { return l.Message == "handed over" }).Successor
	s.await("refusals", func(l line) bool { return l.Message == "successor refuses connections" })
	for _, c := range conns {
		for !c.closed { // what has come back ends with an answer
			c.ask(first)
		}
	}
	want := restart.Report{
		Generation: 1, Successor: second, Offered: 5, Refused: map[handoff.Reason]int{handoff.ReasonFailed: 5}, Drained: 5,
	}
	if have := figures(s.awaitObserved(first, "drained").Report); !reflect.DeepEqual(want, have) {
		t.Errorf("want %+v\nhave %+v", want, have)
	}
	if have := figures(s.logged("upgraded", first)); !reflect.DeepEqual(want, have) {
		t.Errorf("want %+v\nlogged %+v", want, have)
	}
}

func TestReportOfAnUpgradeThatDidNotBegin(t *testing.T) {
	s := startService(t, config{Probation: -1})
	s.file("no-preflight", "", 0o644)
	answer := s.upgrade()
	s.awaitObserved(s.pid(), "failed")
	r := answer.Report
	if answer.Error == "" || r.Generation != 1 || r.Started.IsZero() || r.Total == 0 || r.Preparing != r.Total {
		t.Errorf("want an error in the first phase, have %q, %+v", answer.Error, r)
	}
	if want, have := []string{"started", "failed"}, events(s.observed(s.pid())); !reflect.DeepEqual(want, have) {
		t.Errorf("observed: want %v, have %v", want, have)
	}
}

func TestReportOfATakeover(t *testing.T) {
	s := startService(t, config{Probation: -1, Drain: patience, Socket: true})
	first := s.pid()
	conns := s.dialAll(5, "")
	second := s.takeOver(2)
	want := restart.Report{Generation: 1, Successor: second, Offered: 5, Adopted: 5}
	drained := s.awaitObserved(first, "drained").Report
	if have := figures(drained); !reflect.DeepEqual(want, have) {
		t.Errorf("want %+v\nhave %+v", want, have)
	}
	checkDurations(t, drained)
	s.awaitAdopted(second, len(conns))
}
