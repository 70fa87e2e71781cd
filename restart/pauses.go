package restart

import (
	"math"
	"math/bits"
	"time"
)

// pauses counts durations in buckets, 16 for each doubling, up to 18 minutes: that is 5 KiB for any number of them, and no
// quantile is more than 1/32 off. The zero value is empty. One goroutine uses it.
type pauses struct {
	counts  [(pauseBits-pauseDigits)<<pauseDigits + 1<<pauseDigits]int
	n       int
	largest time.Duration // exact
}

const (
	pauseDigits = 4  // how many bits of a duration, below its highest, a bucket tells apart
	pauseBits   = 40 // of the longest duration in ns
)

func (p *pauses) add(d time.Duration) {
	d = min(max(d, 0), 1<<pauseBits-1)
	p.counts[pauseBucket(d)]++
	p.n++
	p.largest = max(p.largest, d)
}

// quantile returns the duration that this share of all does not exceed, 0 if there are none.
func (p *pauses) quantile(share float64) time.Duration {
	rank := max(1, int(math.Ceil(share*float64(p.n))))
	for bucket, seen := 0, 0; bucket < len(p.counts); bucket++ {
		if seen += p.counts[bucket]; seen >= rank {
			return min(pauseMiddle(bucket), p.largest)
		}
	}
	return 0
}

// pauseBucket is the bucket of a duration: its highest bits, and how many others were shifted out.
func pauseBucket(d time.Duration) int {
	shift := max(0, bits.Len64(uint64(d))-(pauseDigits+1))
	return shift<<pauseDigits + int(d>>shift)
}

// pauseMiddle is the duration that stands for all in a bucket.
func pauseMiddle(bucket int) time.Duration {
	shift := max(0, bucket>>pauseDigits-1)
	low := time.Duration(bucket-shift<<pauseDigits) << shift
	return low + 1<<shift/2
}
