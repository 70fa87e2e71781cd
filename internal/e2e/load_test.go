//go:build linux

package e2e

import (
	"testing"
	"time"

	"github.com/segue-go/segue/internal/load"
)

// The promise of the whole thing: 20 upgrades in 20 seconds under load, and no client notices anything.
func TestInvariant3NoRequestFailsThroughUpgradesUnderLoad(t *testing.T) {
	upgrades := 20
	if testing.Short() {
		upgrades = 3
	}
	s := startService(t, config{Probation: 50 * time.Millisecond})
	clients, err := load.Start(t.Context(), load.Config{
		Addr:      s.address,
		KeepAlive: 500 / slowdown,
		Post:      50 / slowdown,
		Body:      1 << 20,
		Fresh:     50 / slowdown,
		Idle:      200 / slowdown,
		Interval:  20 * time.Millisecond * slowdown,
	})
	if err != nil {
		t.Fatal(err)
	}
	pids := []int{s.pid()}
	next := time.NewTicker(time.Second)
	defer next.Stop()
	for number := 2; number <= upgrades+1; number++ {
		<-next.C // the rate is part of the promise
		end := clients.Mark()
		pids = append(pids, s.hangup(number).PID)
		end()
	}
	<-next.C
	report := clients.Stop()
	t.Logf("%d requests, %d reconnects, latency p50 %v p99 %v max %v; pause p50 %v p99 %v max %v",
		report.Requests, report.Reconnects, report.LatencyP50, report.LatencyP99, report.LatencyMax,
		report.PauseP50, report.PauseP99, report.PauseMax)
	if report.Failed != 0 || report.Refused != 0 || report.Reconnects != 0 {
		t.Errorf("want no failure and no reconnect, have %d failed, of them %d refused, %d reconnects: %q",
			report.Failed, report.Refused, report.Reconnects, report.Errors)
	}
	for i, pid := range pids {
		if report.Answers(pid) == 0 {
			t.Errorf("generation %d, pid %d: no client saw it", i+1, pid)
		}
	}
	for number := 2; number < upgrades+1; number++ {
		if cut := s.cutBy(pids[number-2]); cut != 0 {
			t.Errorf("generation %d cut %d connections", number-1, cut)
		}
	}
}

// cutBy is how many connections a process closed at the end of its drain.
func (s *service) cutBy(pid int) (cut int) {
	for _, l := range s.linesAfter(0) {
		if l.PID == pid && l.Message == "closed connections at the end of the drain" {
			cut += l.Cut
		}
	}
	return cut
}
