package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/segue-go/segue/internal/load"
)

// demo is one run: a server, its load, and upgrades.
type demo struct {
	cfg         config
	out         *os.File
	build       func(ctx context.Context, dir string) (program string, err error)
	upgradeTime time.Duration // an upgrade that takes longer did not happen
	service     *service
	load        *load.Load

	mu    sync.Mutex
	state state
}

// state is how far the run is.
type state struct {
	began     time.Time // of the load
	upgrading bool
	chain     []served // the generations so far, in order
}

// served is a generation that was the one to signal.
type served struct {
	number, pid int
	took        time.Duration // of the upgrade to it; 0 for the first
}

const (
	serverPackage  = "github.com/segue-go/segue/examples/httpserver"
	pace           = 20 * time.Millisecond // between the requests of a client,
	maxRate        = 6000                  // unless that were more requests a second than this
	probation      = 200 * time.Millisecond
	drain          = 5 * time.Second
	maxUpgradeTime = 20 * time.Second
)

func newDemo(cfg config, out *os.File) *demo {
	return &demo{cfg: cfg, out: out, build: goBuild, upgradeTime: maxUpgradeTime}
}

// run returns an error unless everything went as it should. It leaves no process and no file behind.
func (d *demo) run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "segue-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program, err := d.build(ctx, dir)
	if err != nil {
		return interrupted(ctx, err)
	}
	if d.service, err = startService(ctx, program, dir); err != nil {
		return interrupted(ctx, err)
	}
	defer func() { err = errors.Join(err, d.service.stop()) }()
	return d.loaded(ctx)
}

// loaded is the part of the run in which the server is up.
func (d *demo) loaded(ctx context.Context) error {
	first, err := d.service.serving()
	if err != nil {
		return err
	}
	d.set(func(s *state) { s.began, s.chain = time.Now(), []served{{number: 1, pid: first.pid}} })
	requests := d.cfg.conns + d.cfg.fresh()
	d.load, err = load.Start(ctx, load.Config{
		Addr:      d.service.addr,
		KeepAlive: d.cfg.conns,
		Fresh:     d.cfg.fresh(),
		Interval:  max(pace, time.Duration(requests)*time.Second/maxRate),
	})
	if err != nil {
		return interrupted(ctx, err)
	}
	view := startView(d)
	err = d.upgrades(ctx)
	r := result{Report: d.load.Stop(), state: d.now()}
	took := time.Since(r.began)
	view.stop()
	if ctx.Err() != nil {
		return errInterrupted
	}
	if d.cfg.json {
		err = errors.Join(err, r.writeJSON(d.out))
	} else {
		err = errors.Join(err, r.writeTable(d.out, took))
	}
	return errors.Join(err, r.verdict())
}

// upgrades spreads the upgrades over the duration. One that takes long makes the next late, not fail.
func (d *demo) upgrades(ctx context.Context) error {
	began := d.now().began
	for n := 1; n <= d.cfg.upgrades; n++ {
		if err := d.until(ctx, began.Add(time.Duration(n)*d.cfg.gap())); err != nil {
			return err
		}
		d.set(func(s *state) { s.upgrading = true })
		next, err := d.upgrade(ctx)
		d.set(func(s *state) { s.upgrading = false })
		if err != nil {
			return fmt.Errorf("upgrade %d of %d did not happen: %w%s", n, d.cfg.upgrades, err, d.service.lastWords())
		}
		d.set(func(s *state) { s.chain = append(s.chain, next) })
	}
	return d.until(ctx, began.Add(d.cfg.duration))
}

// upgrade has the server replace itself, and waits until another process is the one to signal, clients have answers from it, and
// the process before has ended. None of these is an event that reaches us, so it looks every 5 ms.
func (d *demo) upgrade(ctx context.Context) (next served, err error) {
	before, err := d.service.serving()
	if err != nil {
		return next, err
	}
	began := time.Now()
	defer d.load.Mark()()
	if err := before.process.Signal(syscall.SIGHUP); err != nil {
		return next, fmt.Errorf("signal generation %d, pid %d: %w", before.number, before.pid, err)
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	ctx, cancel := context.WithTimeoutCause(ctx, d.upgradeTime, fmt.Errorf("not done after %v", d.upgradeTime))
	defer cancel()
	for {
		select {
		case <-tick.C:
		case <-d.service.silent:
			return next, errors.New("the server has ended")
		case <-ctx.Done():
			return next, context.Cause(ctx)
		}
		after, err := d.service.serving()
		if err != nil || after.pid == before.pid {
			continue // an error passes, or the time will
		}
		if next.took == 0 {
			next = served{after.number, after.pid, time.Since(began)}
		}
		if before.ended() && d.load.Snapshot().Answers(next.pid) > 0 {
			return next, nil
		}
	}
}

// until waits for a time, while the server is there.
func (d *demo) until(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-d.service.silent:
		return fmt.Errorf("the server has ended%s", d.service.lastWords())
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *demo) now() state {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

func (d *demo) set(change func(*state)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.state)
}

// goBuild builds the server as any user of the module would, from wherever in it the demo was started.
func goBuild(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "httpserver")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, serverPackage)
	cmd.Env = append(os.Environ(), "GOTMPDIR="+dir) // it does not always clean up after itself
	// Killed, it would leave compilers behind.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTime
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", serverPackage, err, said)
	}
	return program, nil
}

// interrupted replaces an error that the end of ctx explains.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}
