package restart

import "github.com/segue-go/segue/handoff"

// budget is for how many connections of a predecessor this process has descriptors. One goroutine uses it.
type budget struct {
	left    int                                 // as estimated
	measure func() (limit, open int, err error) // measureDescriptors, but in tests
}

const (
	// reserveShare is which part of the limit is kept for everything else: files, what the service dials, what it accepts.
	reserveShare = 16
	minReserve   = 32
	// measureBelow is when the estimate is not good enough any more. It is one because counting takes a system call for each few
	// descriptors, and at thousands of connections that would be felt with each batch.
	measureBelow = 4 * handoff.MaxDescriptors
)

// credit is for how many more there is room.
func (b *budget) credit() uint32 {
	if b.left < measureBelow {
		limit, open, err := b.measure()
		if err != nil {
			return 0
		}
		b.left = limit - max(limit/reserveShare, minReserve) - open
	}
	return uint32(max(b.left, 0))
}

// take notes that n more are open.
func (b *budget) take(n int) { b.left -= n }
