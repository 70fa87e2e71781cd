//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ran is what is left of a run.
type ran struct {
	out  string
	err  error
	pids []int
}

// runDemo runs a demo, with a real server unless fault names a false one, and checks that nothing is left of it.
func runDemo(t *testing.T, ctx context.Context, cfg config, fault string, upgradeTime time.Duration) ran {
	t.Helper()
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	d := newDemo(cfg, out)
	d.upgradeTime = upgradeTime
	if fault != "" {
		t.Setenv(fakeVariable, fault)
		d.build = func(context.Context, string) (string, error) { return os.Executable() }
	}
	r := ran{err: d.run(ctx)}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if d.service != nil {
		for _, g := range d.service.generations {
			r.pids = append(r.pids, g.pid)
			if err := syscall.Kill(g.pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("pid %d, generation %d, is left: %v", g.pid, g.number, err)
			}
		}
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	r.out = string(text)
	return r
}

// TestDemo upgrades the real server twice.
func TestDemo(t *testing.T) {
	cfg := config{upgrades: 2, conns: 20, duration: 1500 * time.Millisecond}
	t.Run("table", func(t *testing.T) {
		r := runDemo(t, t.Context(), cfg, "", time.Minute)
		if r.err != nil || len(r.pids) != 3 {
			t.Fatalf("%d generations, %v", len(r.pids), r.err)
		}
		fields := make(map[string]string) // the first word or two of a line to the rest
		for line := range strings.Lines(r.out) {
			words := strings.Fields(line)
			if n := len(words); n > 1 {
				fields[words[0]] = words[1]
			}
		}
		for name, want := range map[string]string{"failed": "0", "upgrades": "2", "3": strconv.Itoa(r.pids[2])} {
			if fields[name] != want {
				t.Errorf("%s is %q, want %s, in\n%s", name, fields[name], want, r.out)
			}
		}
		if n, err := strconv.Atoi(fields["requests"]); err != nil || n < 100 {
			t.Errorf("requests %q, want many", fields["requests"])
		}
		if strings.Contains(r.out, "\x1b") {
			t.Error("escapes in a file")
		}
	})
	t.Run("json", func(t *testing.T) {
		cfg := cfg
		cfg.json = true
		r := runDemo(t, t.Context(), cfg, "", time.Minute)
		if r.err != nil {
			t.Fatal(r.err)
		}
		var got map[string]float64
		if err := json.Unmarshal([]byte(r.out), &got); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"requests", "failed", "reconnects", "upgrades", "pause_p50_ms", "pause_p99_ms"} {
			if _, ok := got[name]; !ok {
				t.Errorf("no %s in %s", name, r.out)
			}
		}
		if len(got) != 6 || got["failed"] != 0 || got["upgrades"] != 2 || got["pause_p50_ms"] <= 0 || got["pause_p99_ms"] < got["pause_p50_ms"] {
			t.Errorf("got %s", r.out)
		}
	})
}

// TestFaultyServer has servers that must make a demo fail, and not hang.
func TestFaultyServer(t *testing.T) {
	tests := map[string]string{ // the fault to the error
		"dead at start": "the server ended at its start; the end of its log:\n  fake: deliberately dead",
		"failing":       "requests failed; the first of them:\n  ",
		"deaf":          "upgrade 1 of 1 did not happen: not done after 1s",
		"mortal":        "upgrade 1 of 1 did not happen: the server has ended",
		"rude":          "connection ended", // between requests or in one
		"modest":        "upgrade 1 of 1 did not happen: not done after 1s",
	}
	for fault, want := range tests {
		t.Run(fault, func(t *testing.T) {
			cfg := config{upgrades: 1, conns: 20, duration: time.Second}
			upgradeTime := time.Second
			if fault == "rude" {
				upgradeTime = time.Minute
			}
			r := runDemo(t, t.Context(), cfg, fault, upgradeTime)
			if r.err == nil || !strings.Contains(r.err.Error(), want) {
				t.Errorf("got %v, want %q", r.err, want)
			}
			if fault == "rude" && (!strings.Contains(r.out, "\nupgrades               1\n") || strings.Contains(r.out, "\nfailed                 0\n")) {
				t.Errorf("the table does not tell what failed:\n%s", r.out)
			}
		})
	}
}

// TestInterrupt ends runs early, at each stage: while the server is built, while it starts, under load, and in an upgrade; and
// one with a server that does not care about SIGTERM.
func TestInterrupt(t *testing.T) {
	for fault, after := range map[string]time.Duration{"": 10 * time.Millisecond, "silent at start": 300 * time.Millisecond, "rude": 300 * time.Millisecond, "deaf": 900 * time.Millisecond, "stubborn": 300 * time.Millisecond} {
		t.Run(fault, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			began := time.Now()
			r := runDemo(t, ctx, config{upgrades: 1, conns: 5, duration: time.Second}, fault, time.Minute)
			if !errors.Is(r.err, errInterrupted) || r.out != "" {
				t.Errorf("got %v and %q, want %v", r.err, r.out, errInterrupted)
			}
			if took := time.Since(began); took > stopTime+5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	good := config{upgrades: 5, conns: 200, duration: 10 * time.Second}
	tests := map[string]func(*config){
		"":                   func(*config) {},
		"-upgrades 0":        func(c *config) { c.upgrades = 0 },
		"-upgrades -1":       func(c *config) { c.upgrades = -1 },
		"-upgrades 1001":     func(c *config) { c.upgrades = 1001 },
		"-conns 0":           func(c *config) { c.conns = 0 },
		"at most 9045":       func(c *config) { c.conns = 9046 },
		"-conns 9223372036":  func(c *config) { c.conns = 1<<63 - 1 },
		"-duration 0s":       func(c *config) { c.duration = 0 },
		"-duration -1ns":     func(c *config) { c.duration = -1 },
		"-duration 1h0m0.1s": func(c *config) { c.duration = time.Hour + 100*time.Millisecond },
		"300ms is needed":    func(c *config) { c.upgrades = 50 },
	}
	for want, change := range tests {
		cfg := good
		change(&cfg)
		err := cfg.check(20_000)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", cfg, err, want)
		}
	}
	cfg := good
	cfg.conns = 9045
	if err := cfg.check(20_000); err != nil || 2*(cfg.conns+cfg.fresh()) > 20_000 {
		t.Errorf("%d and %d clients: %v", cfg.conns, cfg.fresh(), err)
	}
	if err := good.check(64); err == nil || bytes.ContainsAny([]byte(err.Error()), "\n") {
		t.Errorf("200 clients with 64 descriptors: %v", err)
	}
}
