//go:build unix

package chain

import (
	"io"
	"strings"
	"testing"
)

func TestLogHasWhatComesUntilItEnds(t *testing.T) {
	var log Log
	read, write := io.Pipe()
	log.Follow(read)
	found := make(chan string, 1)
	go func() {
		held, err := log.Find(0, Within, `serving .*generation=(\d+)`)
		if err != nil {
			t.Error(err)
		}
		found <- strings.Join(held, " ")
	}()
	_, _ = io.WriteString(write, "msg=started\nmsg=serving addr=a generation=1\nmsg=se")
	if have := <-found; have != "1" {
		t.Errorf("want 1, have %q", have)
	}
	mark := log.Mark()
	if mark != 2 {
		t.Errorf("want 2 lines, have %q", log.Lines(0))
	}
	_, _ = io.WriteString(write, "rving generation=2")
	_ = write.Close()
	log.AwaitEnd()
	if held, err := log.Find(mark, Within, `generation=(\d+)`); err != nil || held[0] != "2" {
		t.Errorf("want 2, have %v, %v", held, err)
	}
	if held, err := log.Find(mark, Within, `generation=(1)`); err == nil {
		t.Errorf("want an error, because nobody can write it any more; have %v", held)
	}
}
