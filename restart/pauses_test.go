package restart

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestPausesQuantilesAreClose(t *testing.T) {
	for _, test := range []struct {
		name   string
		n      int
		random func() time.Duration
	}{
		{"one", 1, func() time.Duration { return 1234567 }},
		{"ns", 1000, func() time.Duration { return rand.N(40 * time.Nanosecond) }},
		{"ms", 1000, func() time.Duration { return rand.N(50 * time.Millisecond) }},
		{"a few that are long", 1000, func() time.Duration {
			if rand.N(50) == 0 {
				return time.Minute + rand.N(time.Minute)
			}
			return rand.N(time.Millisecond)
		}},
		{"longer than there are buckets for", 10, func() time.Duration { return 1 << (pauseBits - 1) * 3 / 2 }},
	} {
		var p pauses
		all := make([]time.Duration, test.n)
		for i := range all {
			all[i] = test.random()
			p.add(all[i])
		}
		slices.Sort(all)
		if want, have := all[len(all)-1], p.largest; want != have {
			t.Errorf("%s: largest: want %v, have %v", test.name, want, have)
		}
		for _, share := range []float64{0, .5, .99, 1} {
			want, have := all[max(0, (int(share*100)*len(all)+99)/100-1)], p.quantile(share)
			if off := (have - want).Abs(); off > want/32 {
				t.Errorf("%s: quantile %v: want %v, have %v", test.name, share, want, have)
			}
		}
	}
}

func TestPausesAtTheEdges(t *testing.T) {
	var p pauses
	if want, have := time.Duration(0), p.quantile(.5); want != have {
		t.Errorf("of nothing: want %v, have %v", want, have)
	}
	p.add(-time.Second) // a clock may step
	if want, have := time.Duration(0), p.quantile(1); want != have {
		t.Errorf("less than nothing: want %v, have %v", want, have)
	}
	p.add(1 << 62)
	if want, have := time.Duration(1<<pauseBits-1), p.largest; want != have {
		t.Errorf("for ever: want %v, have %v", want, have)
	}
	// Each bucket begins where the one before it ends.
	last := 0
	for d := time.Duration(1); d < 1<<pauseBits; d += 1 + d/100 {
		bucket := pauseBucket(d)
		if bucket != last && bucket != last+1 || bucket >= len(p.counts) {
			t.Fatalf("%d ns: bucket %d after bucket %d of %d", d, bucket, last, len(p.counts))
		}
		last = bucket
	}
}
