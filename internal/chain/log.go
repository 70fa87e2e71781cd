//go:build unix

package chain

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sync"
	"time"
)

// Log is what processes write, line by line as it comes. Its methods may be called by several goroutines at once. The zero value is empty.
type Log struct {
	mu      sync.Mutex
	lines   []string
	writers int           // how many logs are followed
	changed chan struct{} // closed with the next line, or end of a log; nil if nobody waits for that
}

// Follow has all that comes from there in the log, and closes it at its end.
func (l *Log) Follow(from io.ReadCloser) {
	l.mu.Lock()
	l.writers++
	l.mu.Unlock()
	go func() {
		defer from.Close()
		lines := bufio.NewScanner(from)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			l.change(func() { l.lines = append(l.lines, lines.Text()) })
		}
		l.change(func() { l.writers-- })
	}()
}

func (l *Log) change(how func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	how()
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Mark is the end of the log so far.
func (l *Log) Mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

// Lines is what the log has from mark on.
func (l *Log) Lines(mark int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[mark:len(l.lines):len(l.lines)]
}

// AwaitEnd waits until all that is followed has ended.
func (l *Log) AwaitEnd() {
	for {
		_, ended, changed := l.since(0)
		if ended {
			return
		}
		<-changed
	}
}

// Await returns the first line from mark on, there already or within patience, that fits. It fails sooner if nobody is left who could write it.
func (l *Log) Await(mark int, patience time.Duration, fits func(line string) bool) (string, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		lines, ended, changed := l.since(mark)
		for _, line := range lines {
			if fits(line) {
				return line, nil
			}
		}
		mark += len(lines)
		if ended {
			return "", errors.New("it has ended")
		}
		select {
		case <-changed:
		case <-late.C:
			return "", fmt.Errorf("not within %v", patience)
		}
	}
}

// Find is Await for a line that matches an expression. It returns what the parentheses hold.
func (l *Log) Find(mark int, patience time.Duration, expression string) (held []string, err error) {
	compiled := regexp.MustCompile(expression)
	_, err = l.Await(mark, patience, func(line string) bool {
		held = compiled.FindStringSubmatch(line)
		return held != nil
	})
	if err != nil {
		return nil, fmt.Errorf("%q in the log: %w", expression, err)
	}
	return held[1:], nil
}

func (l *Log) since(mark int) (lines []string, ended bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.lines[min(mark, len(l.lines)):len(l.lines):len(l.lines)], l.writers == 0, l.changed
}
