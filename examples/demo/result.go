package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/segue-go/segue/internal/load"
)

// result is what a run has come to.
type result struct {
	load.Report
	state
}

// verdict is an error unless no request failed and clients had answers from every generation.
func (r result) verdict() error {
	var failures []error
	if r.Failed > 0 {
		failures = append(failures, fmt.Errorf("%d of %d requests failed; the first of them:\n  %s", r.Failed, r.Requests, strings.Join(r.Errors, "\n  ")))
	}
	for _, g := range r.chain {
		if r.Answers(g.pid) == 0 {
			failures = append(failures, fmt.Errorf("no client had an answer from generation %d, pid %d", g.number, g.pid))
		}
	}
	return errors.Join(failures...)
}

// writeTable writes the result for people, and for awk.
func (r result) writeTable(w io.Writer, took time.Duration) error {
	var b strings.Builder
	row := func(name string, value any) { fmt.Fprintf(&b, "%-12s %11v\n", name, value) }
	row("requests", r.Requests)
	row("requests/s", int(float64(r.Requests)/took.Seconds()))
	row("failed", r.Failed)
	row("reconnects", r.Reconnects)
	row("upgrades", len(r.chain)-1)
	row("pause p50", inMS(r.PauseP50))
	row("pause p99", inMS(r.PauseP99))
	row("pause max", inMS(r.PauseMax))
	row("latency p50", inMS(r.LatencyP50))
	row("latency p99", inMS(r.LatencyP99))
	fmt.Fprintf(&b, "\n%-12s %11s %11s %14s\n", "generation", "pid", "answers", "upgrade took")
	for _, g := range r.chain {
		took := "-"
		if g.took > 0 {
			took = inMS(g.took)
		}
		fmt.Fprintf(&b, "%-12d %11d %11d %14s\n", g.number, g.pid, r.Answers(g.pid), took)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeJSON writes the result for programs.
func (r result) writeJSON(w io.Writer) error {
	return json.NewEncoder(w).Encode(struct {
		Requests   int64   `json:"requests"`
		Failed     int64   `json:"failed"`
		Reconnects int64   `json:"reconnects"`
		Upgrades   int     `json:"upgrades"`
		PauseP50   float64 `json:"pause_p50_ms"`
		PauseP99   float64 `json:"pause_p99_ms"`
	}{r.Requests, r.Failed, r.Reconnects, len(r.chain) - 1, ms(r.PauseP50), ms(r.PauseP99)})
}

// ms is a time in milliseconds, to the microsecond.
func ms(d time.Duration) float64 {
	return math.Round(d.Seconds()*1e6) / 1e3
}

func inMS(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", ms(d))
}
