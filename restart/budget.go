package restart

import (
	"time"

	"github.com/segue-go/segue/handoff"
)

// budget is for how many connections of a predecessor this process has descriptors. One goroutine uses it.
type budget struct {
	left    int                                 // as estimated
	until   time.Time                           // when the estimate is too old: the process opens and closes files that nobody tells of here
	measure func() (limit, open int, err error) // measureDescriptors, but in tests
}

const (
	// reserveShare is which part of the limit is kept for everything else: files, what the service dials, what it accepts.
	reserveShare = 16
	minReserve   = 32
	// measureBelow is when the estimate is not good enough any more, however young. It is one because counting takes a system call for each
	// few descriptors, and at thousands of connections that would be felt with each batch.
	measureBelow = 4 * handoff.MaxDescriptors
	// measureEvery is how old the estimate may be, but for processes with so many descriptors that to count them takes long: that takes
	// 1/measureShare of the time at most.
	measureEvery = 100 * time.Millisecond
	measureShare = 50
)

// credit is for how many more there is room.
func (b *budget) credit() uint32 {
	if now := time.Now(); b.left < measureBelow || now.After(b.until) {
		limit, open, err := b.measure()
		if err != nil {
			return 0
		}
		done := time.Now()
		b.until = done.Add(max(measureEvery, measureShare*done.Sub(now)))
		b.left = limit - max(limit/reserveShare, minReserve) - open
	}
	return uint32(max(b.left, 0))
}

// take notes that n more are open.
func (b *budget) take(n int) { b.left -= n }
