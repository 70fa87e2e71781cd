// Command demo upgrades a server under load, again and again, and shows that no client noticed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	cfg := parseFlags()
	if err := cfg.check(descriptorLimit()); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v; -h explains\n", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := newDemo(cfg, os.Stdout).run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

type config struct {
	upgrades, conns int
	duration        time.Duration
	json            bool
}

// What the flags can be. An upgrade takes a part of a second, most of it the probation.
const (
	maxUpgrades = 1000
	minDuration = time.Second
	maxDuration = time.Hour
	minGap      = 300 * time.Millisecond
)

func parseFlags() (cfg config) {
	flag.IntVar(&cfg.upgrades, "upgrades", 5, "upgrade the server this `often`")
	flag.IntVar(&cfg.conns, "conns", 200, "load it with this `many` keep-alive clients, and a tenth as many that dial for each request")
	flag.DurationVar(&cfg.duration, "duration", 10*time.Second, "spread the upgrades over this `long`")
	flag.BoolVar(&cfg.json, "json", false, "print one JSON object and nothing else")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: unexpected argument %q; -h explains\n", flag.Arg(0))
		os.Exit(2)
	}
	return cfg
}

// check refuses what cannot work where a process may have so many descriptors. One half is for the demo's own end of the
// connections, and the server, which has the other ends, runs as two processes during an upgrade.
func (cfg config) check(descriptors int) error {
	most := max(0, descriptors/2-spareDescriptors) * 10 / 11
	switch {
	case cfg.upgrades < 1 || cfg.upgrades > maxUpgrades:
		return fmt.Errorf("-upgrades %d: from 1 to %d are possible", cfg.upgrades, maxUpgrades)
	case cfg.duration < minDuration || cfg.duration > maxDuration:
		return fmt.Errorf("-duration %v: from %v to %v are possible", cfg.duration, minDuration, maxDuration)
	case cfg.conns < 1:
		return fmt.Errorf("-conns %d: at least 1 is needed", cfg.conns)
	case cfg.conns > most:
		return fmt.Errorf("-conns %d: at most %d are possible with a limit of %d open files (ulimit -n)", cfg.conns, most, descriptors)
	case cfg.gap() < minGap:
		return fmt.Errorf("-upgrades %d in -duration %v: that is one each %v, and at least %v is needed",
			cfg.upgrades, cfg.duration, cfg.gap().Round(time.Millisecond), minGap)
	}
	return nil
}

const spareDescriptors = 50

// gap is the time from one upgrade to the next, which is also that before the first and after the last.
func (cfg config) gap() time.Duration {
	return cfg.duration / time.Duration(cfg.upgrades+1)
}

// fresh is the number of clients that dial for each request.
func (cfg config) fresh() int {
	return (cfg.conns + 9) / 10
}

var errInterrupted = errors.New("interrupted")

const usage = `Usage: demo [flags]

Builds examples/httpserver, starts it, and upgrades it under load with SIGHUP. Its clients repeat nothing: a request fails
unless its answer comes complete and right, and a connection may end only if the server has said so in the answer before;
the client then dials again, which is a reconnect. The pause of a client is its slowest request at an upgrade. The exit
status is 0 only if nothing failed.

Flags:
`
