package main

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/segue-go/segue/internal/load"
)

// view draws the progress of a run into a terminal, over and over in the same place. Elsewhere it draws nothing.
type view struct {
	demo   *demo
	style  style
	drawn  int         // lines of the last frame
	recent []requested // of about the last second
	quit   chan struct{}
	done   chan struct{}
}

// requested is how many requests there had been at a time.
type requested struct {
	at    time.Time
	count int64
}

const (
	frameTime  = 100 * time.Millisecond
	rateFrames = 10
)

func startView(d *demo) *view {
	v := &view{demo: d, style: styleOf(os.Getenv), quit: make(chan struct{}), done: make(chan struct{})}
	if d.cfg.json || columns(d.out) == 0 || os.Getenv("TERM") == "dumb" {
		close(v.done)
		return v
	}
	go v.run()
	return v
}

// run is the goroutine that owns the terminal until stop.
func (v *view) run() {
	defer close(v.done)
	out := v.demo.out
	fmt.Fprint(out, hideCursor)
	defer fmt.Fprint(out, showCursor)
	tick := time.NewTicker(frameTime)
	defer tick.Stop()
	for {
		width := columns(out) - 1 // a full line would wrap
		v.draw(v.frame(time.Now(), v.demo.load.Snapshot(), v.demo.now(), width), width)
		select {
		case <-tick.C:
		case <-v.quit:
			v.draw(nil, 0)
			return
		}
	}
}

// stop wipes the progress and gives the cursor back.
func (v *view) stop() {
	close(v.quit)
	<-v.done
}

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	wipeBelow  = "\x1b[J"
	wipeRest   = "\x1b[K"
)

// draw replaces the last frame by this one, in one write so that it does not flicker.
func (v *view) draw(frame []string, width int) {
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA", v.drawn)
	}
	for _, line := range frame {
		b.WriteString(v.style.fit(line, width) + wipeRest + "\n")
	}
	b.WriteString(wipeBelow)
	v.drawn = len(frame)
	fmt.Fprint(v.demo.out, b.String())
}

// frame is what there is to see. The marks «...» are for the style.
func (v *view) frame(now time.Time, r load.Report, s state, width int) []string {
	cfg := v.demo.cfg
	elapsed := min(now.Sub(s.began), cfg.duration)
	serving := s.chain[len(s.chain)-1]
	doing := ""
	if s.upgrading {
		doing = ", the next on its way"
	}
	failed := fmt.Sprintf("%d failed", r.Failed)
	if r.Failed > 0 {
		failed = "«" + failed + "»"
	}
	return []string{
		fmt.Sprintf("%d keep-alive clients and %d that dial each time, on %s", cfg.conns, cfg.fresh(), v.demo.service.addr),
		"",
		v.style.bar(elapsed, cfg.duration, cfg.upgrades, max(1, min(barWidth, width))),
		"",
		fmt.Sprintf("%4.1f of %.0f s, %d of %d upgrades%s", elapsed.Seconds(), cfg.duration.Seconds(), len(s.chain)-1, cfg.upgrades, doing),
		fmt.Sprintf("generation %d, pid %d", serving.number, serving.pid),
		fmt.Sprintf("%d requests, %s, %d reconnects", r.Requests, failed, r.Reconnects),
		fmt.Sprintf("%d requests/s", v.rate(now, r.Requests)),
	}
}

// rate is the requests per second of late.
func (v *view) rate(now time.Time, count int64) int {
	v.recent = append(v.recent, requested{now, count})
	if len(v.recent) > rateFrames+1 {
		v.recent = v.recent[1:]
	}
	first := v.recent[0]
	if !now.After(first.at) {
		return 0
	}
	return int(float64(count-first.count) / now.Sub(first.at).Seconds())
}

// style is what the terminal can show.
type style struct {
	done, rest, due string // of the bar
	alert, plain    string // escapes
}

// styleOf follows the locale, and the wish for no colour (no-color.org).
func styleOf(env func(string) string) style {
	s := style{done: "#", rest: "-", due: "|", alert: "\x1b[1;31m", plain: "\x1b[0m"}
	locale := env("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if locale == "" {
			locale = env(name)
		}
	}
	if locale = strings.ToLower(locale); strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8") {
		s.done, s.rest, s.due = "█", "░", "▒"
	}
	if env("NO_COLOR") != "" {
		s.alert, s.plain = "", ""
	}
	return s
}

const barWidth = 60

// bar shows the time that has passed, and in the rest when upgrades are due.
func (s style) bar(passed, whole time.Duration, upgrades, width int) string {
	cells := make([]string, width)
	full := int(float64(width) * passed.Seconds() / whole.Seconds())
	for i := range cells {
		switch {
		case i < full:
			cells[i] = s.done
		case upgrades < width/2 && i > 0 && i*(upgrades+1)/width > (i-1)*(upgrades+1)/width:
			cells[i] = s.due
		default:
			cells[i] = s.rest
		}
	}
	return strings.Join(cells, "")
}

// fit cuts a line to a width, so that it is one line on the terminal, and colours what is marked.
func (s style) fit(line string, width int) string {
	var b strings.Builder
	for _, r := range line {
		switch {
		case r == '«':
			b.WriteString(s.alert)
		case r == '»':
			b.WriteString(s.plain)
		case width > 0 && r != utf8.RuneError:
			b.WriteRune(r)
			width--
		}
	}
	return b.String()
}
