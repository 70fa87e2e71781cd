//go:build linux

package e2e

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// try is one request at some time around an upgrade.
type try struct {
	at    time.Duration // when it was sent, from the signal
	split bool          // in two
	new   bool          // the successor answered
}

// A client may send its request in the very instant in which its connection is taken out of one process and put into the
// next. Nobody can say from outside when that is, so that it is searched for: in each upgrade a crowd of connections sends one
// request each, some at any time of it, most around the time at which the answers of the upgrade before went over from one
// generation to the other. A third of the requests arrive in two parts. Each is answered right, on the connection that it was sent on.
func TestInvariant5RequestsInTheInstantOfTheMove(t *testing.T) {
	const upgrades, crowd = 10, 1000 / min(slowdown, 4)
	tries := upgrades * crowd
	if testing.Short() {
		tries /= 5
	}
	s := startService(t, config{Probation: 20 * time.Millisecond, Drain: patience})
	clients := dialManyCounting(t, s.address, crowd)
	askAll(t, clients, s.pid())

	aim, length := time.Duration(0), 200*time.Millisecond // of the move and of the upgrade, as far as is known
	var all []try
	during, answeredBy := 0, map[bool]int{}
	// A busy machine makes each upgrade take another time, and the instant hard to hit: then there are more tries.
	around := func() bool {
		least := len(all) / 20
		return answeredBy[false] >= least && answeredBy[true] >= least && during > 0
	}
	for number := 2; len(all) < tries || !around() && len(all) < 5*tries; number++ {
		before := s.pid()
		made := make([]try, crowd)
		var failed mishaps
		done := make(chan struct{})
		offsets := make([]time.Duration, crowd)
		for i := range offsets {
			offsets[i] = offset(aim, length)
		}
		start := time.Now()
		go func() {
			defer close(done)
			forAll(crowd, func(i int) {
				made[i] = clients[i].try(start, offsets[i], &failed, before)
			})
		}()
		s.hangup(number)
		awaitExit(t, before) // all have moved
		length = time.Since(start)
		<-done
		failed.report(t)
		var within int
		aim, within = turn(made)
		during += within
		for _, m := range made {
			answeredBy[m.new]++
		}
		all = append(all, made...)
	}
	askAll(t, clients, s.pid())
	t.Logf("%d tries: %d answered by the predecessor, %d by the successor, %d of them sent while connections moved",
		len(all), answeredBy[false], answeredBy[true], during)
	if !around() {
		t.Error("the tries were not around the instant of the move, and prove nothing")
	}
}

// offset is a random time to send a request at.
func offset(aim, length time.Duration) time.Duration {
	const around = 15 * time.Millisecond
	if aim == 0 || rand.IntN(4) == 0 {
		return rand.N(length)
	}
	return max(0, aim-around+rand.N(2*around))
}

// try makes one request.
func (c *counting) try(start time.Time, offset time.Duration, failed *mishaps, before int) try {
	request := c.next(0)
	first := len(request)
	if split := rand.IntN(3) == 0; split {
		first = 1 + rand.IntN(first-1)
	}
	time.Sleep(time.Until(start.Add(offset))) // the offset is the point
	made := try{at: time.Since(start), split: first < len(request)}
	err := c.write(request[:first])
	if err == nil && made.split {
		time.Sleep(rand.N(2 * time.Millisecond))
		err = c.write(request[first:])
	}
	if err == nil {
		var pid int
		_, pid, err = c.answer()
		made.new = pid != before
	}
	failed.add(err)
	return made
}

// turn is when answers went over from one generation to the next, in the middle, and how many requests were sent between the first
// that the successor and the last that the predecessor answered.
func turn(made []try) (middle time.Duration, within int) {
	var old, next []time.Duration
	for _, m := range made {
		if m.new {
			next = append(next, m.at)
		} else {
			old = append(old, m.at)
		}
	}
	if len(old) == 0 || len(next) == 0 {
		return 0, 0 // look everywhere again
	}
	begin, end := slices.Min(next), slices.Max(old)
	for _, m := range made {
		if begin <= m.at && m.at <= end {
			within++
		}
	}
	return (begin + end) / 2, within
}
