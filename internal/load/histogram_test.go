package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestQuantiles compares with a sorted list, over nine orders of magnitude.
func TestQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	shares := []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1}
	for range 50 {
		var h histogram
		list := make([]time.Duration, 1+rng.IntN(5000))
		top := math.Pow(10, 3+8*rng.Float64())
		for i := range list {
			list[i] = time.Duration(math.Pow(top, rng.Float64()))
			h.add(list[i])
		}
		slices.Sort(list)
		got, largest, count := h.quantiles(shares...)
		if count != int64(len(list)) || largest != list[len(list)-1] {
			t.Fatalf("%d durations up to %v, want %d up to %v", count, largest, len(list), list[len(list)-1])
		}
		for i, share := range shares {
			want := list[max(1, int(math.Ceil(share*float64(len(list)))))-1]
			if off := (got[i] - want).Abs(); off > want/64+time.Microsecond {
				t.Errorf("quantile %v of %d is %v, want %v", share, len(list), got[i], want)
			}
		}
	}
}

// TestBuckets checks each bucket's limits: they touch, and a duration falls into the bucket that stands for it.
func TestBuckets(t *testing.T) {
	last := -1
	for us := int64(0); us < bucketLimit; us += 1 + us/200 {
		d := time.Duration(us) * time.Microsecond
		b := bucketOf(d)
		if b != last && b != last+1 {
			t.Fatalf("%v is in bucket %d, after %d", d, b, last)
		}
		if m := bucketMiddle(b); bucketOf(m) != b {
			t.Fatalf("%v stands for bucket %d but is in %d", m, b, bucketOf(m))
		}
		last = b
	}
	var h histogram
	for d, want := range map[time.Duration]int{-1: 0, math.MinInt64: 0, math.MaxInt64: len(h.buckets) - 1, 1000: 1} {
		h.add(d)
		if got := bucketOf(d); got != want {
			t.Errorf("%v is in bucket %d, want %d", d, got, want)
		}
	}
}

func TestNoQuantiles(t *testing.T) {
	at, largest, count := new(histogram).quantiles(0.5)
	if at[0] != 0 || largest != 0 || count != 0 {
		t.Errorf("got %v, %v, %d of nothing", at, largest, count)
	}
}
