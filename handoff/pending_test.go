package handoff

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestPendingQueue(t *testing.T) {
	at := &clock{now: time.Unix(1000, 0)}
	queue := &PendingQueue[int]{Now: at.Now}
	for i := range DefaultPendingCapacity {
		if err := queue.Push(i); err != nil {
			t.Fatal(err)
		}
		at.now = at.now.Add(time.Millisecond)
	}
	overflow := queue.Push(-1)
	if !errors.Is(overflow, ErrDescriptorPressure) || FallbackFor(overflow) != FallbackDescriptorPressure {
		t.Errorf("overflow: want ErrDescriptorPressure, have %v", overflow)
	}
	if have, ok := queue.Pop(); have != 0 || !ok {
		t.Errorf("pop: want 0, have %d, %v", have, ok)
	}
	if due, ok := queue.Next(); !ok || !due.Equal(time.Unix(1000, 0).Add(101*time.Millisecond)) {
		t.Errorf("next: have %v, %v", due, ok)
	}
	// 64 ms are over; at 103 ms what came at 1, 2 and 3 ms is overdue.
	at.now = at.now.Add(39 * time.Millisecond)
	if have, ok := queue.Pop(); have != 4 || !ok {
		t.Errorf("pop: want the oldest that is not overdue, 4, have %d, %v", have, ok)
	}
	if want, have := []int{1, 2, 3}, queue.Expire(); !slices.Equal(want, have) {
		t.Errorf("overdue: want %v, have %v", want, have)
	}
	if want, have := 59, queue.Len(); want != have {
		t.Errorf("waiting: want %d, have %d", want, have)
	}
	at.now = at.now.Add(time.Second)
	if have, ok := queue.Pop(); ok {
		t.Errorf("all overdue: want none, have %d", have)
	}
	if err := (&PendingQueue[int]{Capacity: 1, TTL: -1}).Push(1); err != nil {
		t.Error(err)
	}
	if want, have := 59, len(queue.Clear()); want != have {
		t.Errorf("clear: want %d, have %d", want, have)
	}
	if _, ok := queue.Next(); ok || queue.Len() != 0 || len(queue.Expire()) != 0 {
		t.Error("want nothing left")
	}
}

func TestPendingQueueCountsTheOverdue(t *testing.T) {
	at := &clock{now: time.Unix(1000, 0)}
	queue := &PendingQueue[string]{Capacity: 1, TTL: time.Second, Now: at.Now}
	for _, step := range []struct {
		name string
		do   func()
		want error
	}{
		{"first", func() {}, nil},
		{"second", func() {}, ErrDescriptorPressure},
		{"while one is overdue", func() { at.now = at.now.Add(time.Second) }, ErrDescriptorPressure},
		{"after the sweep", func() { queue.Expire() }, nil},
	} {
		step.do()
		if have := queue.Push(step.name); !errors.Is(have, step.want) {
			t.Errorf("%s: want %v, have %v", step.name, step.want, have)
		}
	}
}

func TestPendingQueueIsSafeForConcurrentUse(t *testing.T) {
	queue := &PendingQueue[int]{TTL: time.Millisecond}
	var group sync.WaitGroup
	var mu sync.Mutex
	pushed, taken := 0, 0
	for range 4 {
		group.Go(func() {
			for i := range 500 {
				err := queue.Push(i)
				_, popped := queue.Pop()
				expired := len(queue.Expire())
				mu.Lock()
				if err == nil {
					pushed++
				}
				if popped {
					taken++
				}
				taken += expired
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if taken += len(queue.Clear()); pushed != taken {
		t.Errorf("want %d taken, have %d", pushed, taken)
	}
}
