package load

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts durations in buckets: one for each microsecond up to 64, from there 32 for each doubling, up to 17
// minutes. That is 7 KiB, and no quantile is more than 1/64 off. It may be used by many goroutines.
type histogram struct {
	buckets [832]atomic.Int64
	largest atomic.Int64 // nanoseconds, exact
}

const (
	bucketBits  = 5
	bucketLimit = 1<<30 - 1 // microseconds
)

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(d)].Add(1)
	for {
		old := h.largest.Load()
		if int64(d) <= old || h.largest.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// quantiles returns the durations below which the given shares of all lie, the largest, and how many there are.
func (h *histogram) quantiles(shares ...float64) (at []time.Duration, largest time.Duration, count int64) {
	var counts [len(h.buckets)]int64
	for i := range h.buckets {
		counts[i] = h.buckets[i].Load()
		count += counts[i]
	}
	largest = time.Duration(h.largest.Load())
	at = make([]time.Duration, len(shares))
	for i, share := range shares {
		rank := max(1, int64(math.Ceil(share*float64(count))))
		seen := int64(0)
		for b, n := range counts {
			if seen += n; seen >= rank {
				at[i] = min(bucketMiddle(b), largest)
				break
			}
		}
	}
	return at, largest, count
}

// bucketOf is the bucket of a duration. Above the linear part, a value keeps its top six bits and the number of bits that
// were shifted out.
func bucketOf(d time.Duration) int {
	us := uint64(min(max(d.Microseconds(), 0), bucketLimit))
	shift := max(0, bits.Len64(us)-(bucketBits+1))
	return shift<<bucketBits + int(us>>shift)
}

// bucketMiddle is the duration that stands for all in a bucket.
func bucketMiddle(b int) time.Duration {
	shift := max(0, b>>bucketBits-1)
	low := int64(b-shift<<bucketBits) << shift
	return time.Duration(low)*time.Microsecond + time.Duration(int64(1)<<shift)*time.Microsecond/2
}
