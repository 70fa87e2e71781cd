package restart

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segue-go/segue/handoff"
)

func TestCounterErrors(t *testing.T) {
	var c counters
	for _, name := range []string{"", strings.Repeat("x", handoff.MaxName+1)} {
		if _, err := c.named(name); !errors.Is(err, ErrCounter) {
			t.Errorf("%.20q: want ErrCounter, have %v", name, err)
		}
	}
	for i := range MaxCounters {
		if _, err := c.named(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.named("one more"); !errors.Is(err, ErrCounter) {
		t.Errorf("one more than the most: want ErrCounter, have %v", err)
	}
	if _, err := c.named("0"); err != nil {
		t.Errorf("one that there is: %v", err)
	}
}

func TestCounterAllocatesNothing(t *testing.T) {
	var c counters
	counter, err := c.named("requests")
	if err != nil {
		t.Fatal(err)
	}
	if have := testing.AllocsPerRun(100, func() { counter.Add(1); _ = counter.Value() }); have != 0 {
		t.Errorf("want no allocation, have %v", have)
	}
}

func TestCountersAreOneByName(t *testing.T) {
	var c counters
	var adding sync.WaitGroup
	for range 8 {
		adding.Go(func() {
			for range 1000 {
				counter, err := c.named("requests")
				if err != nil {
					t.Error(err)
					return
				}
				counter.Add(2)
			}
		})
	}
	adding.Wait()
	if want, have := []handoff.Total{{Name: "requests", Value: 16_000}}, c.totals(); !reflect.DeepEqual(want, have) {
		t.Errorf("want %v, have %v", want, have)
	}
}

func TestCountersHear(t *testing.T) {
	value := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	log := slog.New(slog.DiscardHandler)
	for _, test := range []struct {
		name  string
		own   uint64 // counted here after the offer of 100
		heard []uint64
		want  uint64
		err   error
	}{
		{"nothing", 5, nil, 105, nil},
		{"the same again", 5, []uint64{100, 100}, 105, nil},
		{"more and more", 5, []uint64{101, 150, 150, 151}, 156, nil},
		{"less", 5, []uint64{150, 149}, 155, handoff.ErrUnexpectedMessage},
		{"less than offered", 5, []uint64{99}, 105, handoff.ErrUnexpectedMessage},
	} {
		var c counters
		if err := c.inherit(&handoff.Entry{Kind: kindCounter, Name: "requests", Data: value(100)}); err != nil {
			t.Fatal(err)
		}
		counter, err := c.named("requests")
		if err != nil {
			t.Fatal(err)
		}
		counter.Add(test.own)
		var heard error
		for _, total := range test.heard {
			if heard == nil {
				heard = c.hear(&handoff.Counted{Totals: []handoff.Total{{Name: "requests", Value: total}}}, log)
			}
		}
		if !errors.Is(heard, test.err) || heard != nil && !strings.Contains(heard.Error(), `"requests"`) {
			t.Errorf("%s: want %v of requests, have %v", test.name, test.err, heard)
		}
		if have := counter.Value(); test.want != have {
			t.Errorf("%s: want %d, have %d", test.name, test.want, have)
		}
	}

	// One that was not offered begins here; one too many does not, and the others go on.
	var c counters
	var totals []handoff.Total
	for i := range MaxCounters + 1 {
		totals = append(totals, handoff.Total{Name: fmt.Sprint(i), Value: 7})
	}
	if err := c.hear(&handoff.Counted{Totals: totals}, log); err != nil {
		t.Error(err)
	}
	if want, have := MaxCounters, len(c.totals()); want != have {
		t.Errorf("want %d counters, have %d", want, have)
	}
}

func TestCutTotals(t *testing.T) {
	repeat := func(n, name int) []handoff.Total {
		totals := make([]handoff.Total, n)
		for i := range totals {
			totals[i] = handoff.Total{Name: strings.Repeat("x", name), Value: 1<<64 - 1}
		}
		return totals
	}
	for _, test := range []struct {
		name   string
		totals []handoff.Total
		want   []int
	}{
		{"none", nil, nil},
		{"one", repeat(1, 1), []int{1}},
		{"as many as there may be", repeat(MaxCounters, 10), []int{630, 394}},
		{"the longest names", repeat(100, handoff.MaxName), []int{31, 31, 31, 7}},
		{"the shortest", repeat(2000, 0), []int{1024, 976}},
	} {
		var have []int
		for rest := test.totals; len(rest) > 0; {
			var first []handoff.Total
			first, rest = cutTotals(rest)
			have = append(have, len(first))
		}
		if !reflect.DeepEqual(test.want, have) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, have)
		}
	}
}

// A successor that does not take what it is told in time is not waited for again. When it reads, it is told all that it has missed.
func TestSuccessorThatDoesNotReadIsToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counters
		counter, err := c.named("requests")
		if err != nil {
			t.Fatal(err)
		}
		reads := false
		var heard []uint64
		told := &counting{
			counters: &c, log: slog.New(slog.DiscardHandler), told: make(map[string]uint64),
			send: func(ctx context.Context, message handoff.Message) error {
				if !reads {
					<-ctx.Done()
					return fmt.Errorf("send: %w", context.Cause(ctx))
				}
				heard = append(heard, message.(*handoff.Counted).Totals[0].Value)
				return nil
			},
		}
		for _, step := range []struct {
			reads bool
			takes time.Duration
			heard []uint64
		}{
			{false, moveTimeout, nil},
			{false, lateTimeout, nil},
			{false, lateTimeout, nil},
			{true, 0, []uint64{4}},
			{true, 0, []uint64{4, 5}},
			{false, moveTimeout, []uint64{4, 5}},
		} {
			counter.Add(1)
			reads = step.reads
			began := time.Now()
			told.tell(moveTimeout)
			if have := time.Since(began); step.takes != have || !slices.Equal(step.heard, heard) {
				t.Errorf("after %d: want %v heard after %v, have %v after %v", counter.Value(), step.heard, step.takes, heard, have)
			}
		}
	})
}

// One that has gone is not told again. An older one is told nothing.
func TestCountingGivesUp(t *testing.T) {
	var c counters
	counter, err := c.named("requests")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(1)
	sent := 0
	told := &counting{
		counters: &c, log: slog.New(slog.DiscardHandler), told: make(map[string]uint64),
		send: func(context.Context, handoff.Message) error { sent++; return io.ErrUnexpectedEOF },
	}
	for range 3 {
		told.tell(time.Millisecond)
	}
	if want := 1; want != sent || !errors.Is(told.err, io.ErrUnexpectedEOF) {
		t.Errorf("want %d message and io.ErrUnexpectedEOF, have %d, %v", want, sent, told.err)
	}
	(*counting)(nil).tell(time.Millisecond)
	(*counting)(nil).finish()
}

// A counter that cannot grow any more is no step back, not even for the successor, which adds what it counts itself.
func TestCounterStaysAtTheLargestValue(t *testing.T) {
	const most = math.MaxUint64
	var here, there counters
	value := func(c *counters) *Counter {
		counter, err := c.named("bytes")
		if err != nil {
			t.Fatal(err)
		}
		return counter
	}
	value(&here).Add(most - 2)
	entries := here.entries()
	if err := there.inherit(&entries[0]); err != nil {
		t.Fatal(err)
	}
	value(&there).Add(1)
	for _, want := range []uint64{most - 1, most, most, most} { // the predecessor's
		value(&here).Add(1)
		if have := value(&here).Value(); want != have {
			t.Errorf("want %d, have %d", want, have)
		}
		if err := there.hear(&handoff.Counted{Totals: here.totals()}, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if have := value(&there).Value(); have != most {
			t.Errorf("successor: want %d, have %d", uint64(most), have)
		}
	}
	var sum Counter
	var adding sync.WaitGroup
	for range 4 {
		adding.Go(func() {
			for range 1000 {
				sum.Add(most / 3000)
			}
		})
	}
	adding.Wait()
	if have := sum.Value(); have != most {
		t.Errorf("several at once: want %d, have %d", uint64(most), have)
	}
}
