package handoff

import (
	"slices"
	"time"
)

// failureWindow holds when the last failures of one peer were, the oldest first. It slides: what counts is always the
// time before now, so a peer cannot fail twice as often around the end of one window and the start of the next.
type failureWindow struct{ times []time.Time }

// add keeps the newest most times.
func (w *failureWindow) add(at time.Time, most int) {
	if len(w.times) >= most {
		w.times = slices.Delete(w.times, 0, len(w.times)-most+1)
	}
	w.times = append(w.times, at)
}

// forget drops what happened at before or earlier.
func (w *failureWindow) forget(before time.Time) {
	first := slices.IndexFunc(w.times, func(at time.Time) bool { return at.After(before) })
	if first < 0 {
		first = len(w.times)
	}
	w.times = slices.Delete(w.times, 0, first)
}

// last is when it failed last, the zero time if it did not.
func (w *failureWindow) last() time.Time {
	if len(w.times) == 0 {
		return time.Time{}
	}
	return w.times[len(w.times)-1]
}
