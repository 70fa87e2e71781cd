package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// fault is how a successor misbehaves, so that tests can see its predecessor go on. The zero fault is none.
type fault struct {
	unhealthy  bool
	crashAfter *time.Duration // after the first sign that this generation was found ready
	crash      sync.Once
}

const (
	faultUsage = `exit-before-ready, hang-before-ready, crash-after-ready 500ms, or unhealthy`

	// hangFor ends the process of a test that died before it could.
	hangFor = 10 * time.Minute
)

// begin reads the fault from a file and, if it is one of those before ready, commits it. No file is no fault.
func (f *fault) begin(path string) error {
	if path == "" {
		return nil
	}
	line, err := readLine(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read fault: %w", err)
	}
	name, after, _ := strings.Cut(line, " ")
	switch {
	case line == "":
		return nil
	case line == "exit-before-ready":
		return errors.New("fault: exit before ready")
	case line == "hang-before-ready":
		slog.Warn("fault: hanging before ready", "for", hangFor)
		time.Sleep(hangFor)
		return errors.New("fault: hung before ready for too long")
	case name == "crash-after-ready":
		d, err := time.ParseDuration(strings.TrimSpace(after))
		if err != nil || d < 0 {
			return fmt.Errorf("fault %q: want a time like 500ms after crash-after-ready", line)
		}
		f.crashAfter = &d
	case line == "unhealthy":
		f.unhealthy = true
	default:
		return fmt.Errorf("unknown fault %q in %s: want %s", line, path, faultUsage)
	}
	return nil
}

// healthy is the health check of this generation. Nobody asks before it is ready.
func (f *fault) healthy(context.Context) error {
	if f.unhealthy {
		return errors.New("fault: unhealthy")
	}
	if f.crashAfter != nil {
		f.crash.Do(func() {
			time.AfterFunc(*f.crashAfter, func() {
				slog.Error("fault: crash", "after", *f.crashAfter)
				os.Exit(3)
			})
		})
	}
	return nil
}

// readLine reads a file that should hold one line at most.
func readLine(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, 4096))
	return strings.TrimSpace(string(content)), err
}
