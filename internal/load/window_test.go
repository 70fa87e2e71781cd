package load

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPauses has clients make requests around windows, in milliseconds.
func TestPauses(t *testing.T) {
	type span [2]int // of a window or of a request
	tests := map[string]struct {
		windows []span // one that ends at 0 is never closed
		clients [][]span
		want    []time.Duration // the pauses, sorted
	}{
		"no window":                        {nil, [][]span{{{1, 5}}}, nil},
		"before":                           {[]span{{10, 20}}, [][]span{{{1, 5}, {6, 9}}}, nil},
		"first after":                      {[]span{{10, 20}}, [][]span{{{1, 5}, {22, 25}, {26, 99}}}, ms(3)},
		"within, settled by a quick one":   {[]span{{10, 20}}, [][]span{{{11, 18}, {21, 22}, {23, 99}}}, ms(7)},
		"within, settled by a slow one":    {[]span{{10, 20}}, [][]span{{{11, 13}, {19, 30}, {31, 99}}}, ms(11)},
		"across the start":                 {[]span{{10, 20}}, [][]span{{{2, 11}, {12, 13}, {21, 22}}}, ms(9)},
		"across the whole":                 {[]span{{10, 20}}, [][]span{{{5, 25}, {26, 99}}}, ms(20)},
		"never settled":                    {[]span{{10, 20}}, [][]span{{{12, 15}}}, ms(3)},
		"never closed":                     {[]span{{10, 0}}, [][]span{{{12, 15}, {16, 30}}}, ms(14)},
		"closed by the next":               {[]span{{10, 0}, {20, 30}}, [][]span{{{12, 15}, {22, 23}, {31, 33}}}, ms(2, 3)},
		"one request across three windows": {[]span{{10, 12}, {14, 16}, {18, 20}}, [][]span{{{11, 19}, {21, 22}}}, ms(8, 8, 8)},
		"windows without a request":        {[]span{{10, 12}, {14, 16}}, [][]span{{{1, 3}, {20, 25}}}, ms(5, 5)},
		"three clients":                    {[]span{{10, 20}}, [][]span{{{11, 12}, {21, 22}}, {{12, 19}, {21, 22}}, {{1, 2}}}, ms(1, 7)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var list windows
			var got histogram
			clients := make([]pauses, len(test.clients))
			for i := range clients {
				clients[i].at = list.first()
			}
			// Time passes a millisecond at a step. At each, requests are answered before windows open or close.
			var end func()
			for now := range 100 {
				clock := func() time.Duration { return time.Duration(now) * time.Millisecond }
				for i, requests := range test.clients {
					for _, r := range requests {
						if r[1] == now {
							clients[i].observe(&got, clock()-time.Duration(r[1]-r[0])*time.Millisecond, clock())
						}
					}
				}
				for _, w := range test.windows {
					if w[0] == now {
						end = list.open(clock)
					}
					if w[1] == now && now > 0 {
						end()
					}
				}
			}
			for i := range clients {
				clients[i].settle(&got)
			}
			if have, want := contents(&got), contents(histogramOf(test.want)); have != want {
				t.Errorf("pauses %s, want %s", have, want)
			}
		})
	}
}

func ms(times ...int) []time.Duration {
	d := make([]time.Duration, len(times))
	for i, t := range times {
		d[i] = time.Duration(t) * time.Millisecond
	}
	return d
}

func histogramOf(times []time.Duration) *histogram {
	h := new(histogram)
	for _, d := range times {
		h.add(d)
	}
	return h
}

// contents lists what a histogram holds.
func contents(h *histogram) string {
	var lines []string
	for b := range h.buckets {
		if n := h.buckets[b].Load(); n > 0 {
			lines = append(lines, fmt.Sprintf("%d at %v", n, bucketMiddle(b)))
		}
	}
	return strings.Join(slices.Sorted(slices.Values(lines)), ", ")
}

// TestWindowClosesOnce checks that the end of a window stays what it was.
func TestWindowClosesOnce(t *testing.T) {
	var list windows
	now := time.Duration(0)
	clock := func() time.Duration { now += time.Second; return now }
	list.first()
	end := list.open(clock) // opens at 1 s
	w := list.last
	end()            // 2 s
	end()            // 3 s
	list.open(clock) // 4 s
	if got := time.Duration(w.end.Load()); got != 2*time.Second {
		t.Errorf("window ends at %v, want 2s", got)
	}
}

// TestMark measures one upgrade on a server that is slow in it and slower after, once with a redial in between.
func TestMark(t *testing.T) {
	var l *Load
	ready, slow := make(chan struct{}), 30*time.Millisecond
	s := serve(t, 12, func(turn turn) bool {
		switch turn.total {
		case 4:
			<-ready
			end := l.Mark()
			time.Sleep(slow)
			end()
			return say(announced(good), false)(turn)
		case 10:
			time.Sleep(3 * slow)
		}
		return say(good, true)(turn)
	})
	var err error
	if l, err = Start(t.Context(), Config{Addr: s.Addr().String(), KeepAlive: 1}); err != nil {
		t.Fatal(err)
	}
	close(ready)
	<-s.passed
	got := l.Stop()
	if got.Pauses != 1 || got.PauseMax < slow || got.PauseMax > 3*slow || got.PauseP50 != got.PauseP99 {
		t.Errorf("%d pauses, the longest %v; want one of %v", got.Pauses, got.PauseMax, slow)
	}
	if got.LatencyMax < 3*slow || got.LatencyP50 > slow {
		t.Errorf("latency %v at most, %v in the middle; want more than %v and less than %v", got.LatencyMax, got.LatencyP50, 3*slow, slow)
	}
}

// TestPauseOfFailures checks that a client without a server is in pause until it has an answer again.
func TestPauseOfFailures(t *testing.T) {
	var l *Load
	ready, dead := make(chan struct{}), 4
	s := serve(t, 10, func(turn turn) bool {
		if turn.total == 2 {
			<-ready
			l.Mark()
		}
		return (turn.total < 2 || turn.total >= 2+dead) && say(good, true)(turn)
	})
	var err error
	if l, err = Start(t.Context(), Config{Addr: s.Addr().String(), KeepAlive: 1}); err != nil {
		t.Fatal(err)
	}
	close(ready)
	<-s.passed
	got := l.Stop()
	if want := time.Duration(dead) * afterFailure; got.Failed != int64(dead) || got.PauseMax < want || got.LatencyMax > got.PauseMax {
		t.Errorf("%d failed, pause %v; want %d and at least %v", got.Failed, got.PauseMax, dead, want)
	}
}
