package load

import (
	"fmt"
	"maps"
	"testing"
)

// TestAnswers counts by what servers might answer.
func TestAnswers(t *testing.T) {
	var book tally
	a, b := answers{tally: &book}, answers{tally: &book}
	for _, body := range []string{
		"generation 1 pid 10\n", "generation 1 pid 10\n", "generation 2 pid 110\n", "generation 1 pid 10\n",
		"", "hello\n", "generation 2 pid 110", "generation 2 pid 110\nmore\n", "generation x pid 110\n",
		"generation 1 pid 00000000000000000000000000000000000000000000000000000000000000000010\n",
	} {
		a.count([]byte(body))
		b.count([]byte(body))
	}
	got := book.report()
	want := map[string]int64{"generation 1 pid 10": 6, "generation 2 pid 110": 2}
	if !maps.Equal(got.Pids, want) {
		t.Errorf("got %v, want %v", got.Pids, want)
	}
	if got.Answers(10) != 6 || got.Answers(110) != 2 || got.Answers(0) != 0 {
		t.Errorf("by pid: 10 %d, 110 %d, 0 %d", got.Answers(10), got.Answers(110), got.Answers(0))
	}
}

// TestAnswersAreBounded has a server that invents generations.
func TestAnswersAreBounded(t *testing.T) {
	var book tally
	a := answers{tally: &book}
	for i := range 2 * maxPids {
		a.count(fmt.Appendf(nil, "generation %d pid 1\n", i))
	}
	if got := len(book.report().Pids); got != maxPids {
		t.Errorf("%d generations kept, want %d", got, maxPids)
	}
}
