//go:build linux

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// residentKiB is VmRSS of /proc/PID/status (proc(5)), in KiB.
func residentKiB(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kib int
	for entry := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(entry, "VmRSS:"); found {
			if _, err := fmt.Sscan(value, &kib); err != nil {
				t.Fatal(err)
			}
		}
	}
	return kib
}

func TestInvariant8NothingGrowsOver200Upgrades(t *testing.T) {
	const upgrades, sampled = 200, 20
	s := startService(t, config{Probation: -1, Unix: true, Packet: true})
	var want footprint
	var resident []int
	for number := 2; number <= upgrades+1; number++ {
		before := s.pid()
		s.hangup(number)
		awaitExit(t, before)
		if number == 2 {
			want = s.measure() // a successor, as all that follow
		}
		resident = append(resident, residentKiB(t, s.pid()))
		if number%sampled == 0 {
			if have := s.settled(want); have != "" {
				t.Fatalf("generation %d: %s", number, have)
			}
		}
	}
	mean := func(samples []int) (sum int) {
		for _, kib := range samples {
			sum += kib
		}
		return sum / len(samples)
	}
	early, late := mean(resident[:sampled]), mean(resident[upgrades-sampled:])
	t.Logf("resident memory of the first %d successors: %d KiB, of the last: %d KiB", sampled, early, late)
	if late > early+early/10 {
		t.Errorf("resident memory grows: want at most a tenth more than %d KiB, have %d KiB", early, late)
	}
}

func TestInvariant8NothingGrowsOverFailedUpgrades(t *testing.T) {
	s := startService(t, config{Probation: -1, UpgradeTimeout: patience})
	want := s.measure()
	for i := range 50 {
		if i%2 == 0 {
			s.install(ownBinary(t))
			s.setFault("exit before ready")
		} else {
			s.installImpostor("garbage-on-probation")
		}
		if answer := s.upgrade(); answer.Error == "" {
			t.Fatal("want an error, have none")
		}
	}
	if have := s.settled(want); have != "" {
		t.Errorf("after 50 failed upgrades: %s", have)
	}
}
