//go:build linux || darwin || freebsd

package restart

import (
	"sync"
	"testing"
	"time"
)

// Five upgrades in a row, with every generation counting while the next one does: nothing is lost or counted twice.
func TestCountersGoOnThroughGenerations(t *testing.T) {
	const adders, upgrades = 2, 5
	var want uint64
	current := runFirst(t, newTwin(t))
	named := func(g *Generation) *Counter {
		t.Helper()
		counter, err := g.Counter("requests")
		if err != nil {
			t.Fatal(err)
		}
		return counter
	}
	unclaimed, err := current.Counter("of the first")
	if err != nil {
		t.Fatal(err)
	}
	unclaimed.Add(17)
	for range upgrades {
		stop := make(chan struct{})
		var adding sync.WaitGroup
		var mu sync.Mutex
		count := func(counter *Counter) {
			for range adders {
				adding.Go(func() {
					for n := uint64(0); ; n++ {
						select {
						case <-stop:
							mu.Lock()
							want += n
							mu.Unlock()
							return
						default:
							counter.Add(1)
						}
					}
				})
			}
		}
		old := named(current.Generation)
		count(old)
		next := current.upgrade(t, func(g *Generation) { count(named(g)) })
		fresh := named(next.Generation)
		for seen := old.Value(); fresh.Value() < seen; { // it hears of that without waiting for the end
			time.Sleep(time.Millisecond)
		}
		close(stop)
		adding.Wait()
		late, err := current.Counter("late") // nobody knew of it at the commit
		if err != nil {
			t.Fatal(err)
		}
		late.Add(1)
		current.leave()
		next.awaitPredecessor(t)
		if have := fresh.Value(); want != have {
			t.Errorf("generation %d: want %d, have %d", next.number, want, have)
		}
		current = next
	}
	for name, want := range map[string]uint64{"of the first": 17, "late": upgrades} {
		counter, err := current.Counter(name)
		if err != nil || counter.Value() != want {
			t.Errorf("%s: want %d, have %d, %v", name, want, counter.Value(), err)
		}
	}
}
