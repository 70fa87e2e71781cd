//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/load"
)

// The load of 20 upgrades again, with the timeouts of net/http set. The idle clients speak now and then, or their connections would end;
// in between they move.
func TestInvariant3NoRequestFailsThroughUpgradesWithTimeouts(t *testing.T) {
	const idleTimeout = 2 * time.Second
	upgrades := 20
	if testing.Short() {
		upgrades = 3
	}
	for _, test := range []struct {
		name string
		config
	}{
		{"idle", config{IdleTimeout: idleTimeout}},
		{"idle and header and write", config{IdleTimeout: idleTimeout, ReadHeaderTimeout: time.Second, WriteTimeout: time.Second}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.Probation = 50 * time.Millisecond
			s := startService(t, test.config)
			start := func(cfg load.Config) *load.Load {
				cfg.Addr = s.address
				clients, err := load.Start(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				return clients
			}
			busy := start(load.Config{KeepAlive: 500 / slowdown, Interval: 100 * time.Millisecond * slowdown})
			idle := start(load.Config{KeepAlive: 200 / slowdown, Interval: idleTimeout / 2})
			pids := []int{s.pid()}
			next := time.NewTicker(250 * time.Millisecond)
			defer next.Stop()
			for number := 2; number <= upgrades+1; number++ {
				<-next.C // the rate is part of the promise
				pids = append(pids, s.hangup(number).PID)
			}
			for _, crowd := range []struct {
				name string
				*load.Load
			}{{"busy", busy}, {"idle", idle}} {
				report := crowd.Stop()
				t.Logf("%s: %d requests, latency p50 %v p99 %v max %v", crowd.name, report.Requests,
					report.LatencyP50, report.LatencyP99, report.LatencyMax)
				if report.Failed != 0 || report.Reconnects != 0 {
					t.Errorf("%s: want no failure and no reconnect, have %d failed, %d reconnects: %q",
						crowd.name, report.Failed, report.Reconnects, report.Errors)
				}
			}
			for number, pid := range pids[:upgrades] {
				if cut := s.cutBy(pid); cut != 0 {
					t.Errorf("generation %d cut %d connections", number+1, cut)
				}
			}
		})
	}
}

// tooLate is by how much a connection may outlive its timeout on a machine that is busy. It is less than the time that upgrades go on
// for after that, so that a clock which each move sets back is seen.
const tooLate = 1500 * time.Millisecond

// A server's clocks go on while its connections move: what it would have closed at some time is closed then, by whichever
// generation has it, and not before.
func TestTimeoutsCountOverMoves(t *testing.T) {
	const timeout = 2 * time.Second
	for _, test := range []struct {
		name string
		config
		begin func(c *counting) error // when the clock begins, a new connection has done nothing yet
	}{
		{"idle after a request", config{IdleTimeout: timeout}, func(c *counting) error { _, _, err := c.ask(); return err }},
		{"idle after a request, other timeouts set", config{IdleTimeout: timeout, ReadHeaderTimeout: timeout / 4, WriteTimeout: timeout / 4},
			func(c *counting) error { _, _, err := c.ask(); return err }},
		{"silent from the start", config{ReadHeaderTimeout: timeout}, func(*counting) error { return nil }},
		{"silent from the start, short idle time", config{ReadHeaderTimeout: timeout, IdleTimeout: timeout / 4}, func(*counting) error { return nil }},
		{"idle, a byte was sent", config{IdleTimeout: timeout, ReadHeaderTimeout: timeout},
			func(c *counting) error {
				_, _, err := c.ask()
				c.begun = true
				return errors.Join(err, c.write([]byte("G")))
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.Probation, test.Drain = 20*time.Millisecond, patience
			s := startService(t, test.config)
			lived := make([]time.Duration, 100/slowdown)
			var failed mishaps
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				forAll(len(lived), func(i int) {
					time.Sleep(rand.N(500 * time.Millisecond)) // they are at different times of it at each upgrade
					began := time.Now()
					c := &counting{name: i}
					err := c.dial(s.address)
					if err == nil {
						defer c.conn.Close()
						err = test.begin(c)
					}
					if err == nil {
						err = c.awaitEnd(timeout + tooLate)
					}
					lived[i] = time.Since(began)
					failed.add(err)
				})
			}()
			upgrades := 0
			for next := time.NewTicker(200 * time.Millisecond); ; upgrades++ {
				select {
				case <-next.C:
					before := s.pid()
					s.hangup(upgrades + 2)
					awaitExit(t, before) // all have moved
					continue
				case <-ended:
					next.Stop()
				}
				break
			}
			failed.report(t)
			shortest, longest := lived[0], lived[0]
			for _, life := range lived {
				shortest, longest = min(shortest, life), max(longest, life)
			}
			t.Logf("%d upgrades, connections lived from %v to %v", upgrades, shortest, longest)
			if shortest < timeout || longest > timeout+tooLate {
				t.Errorf("want them to live %v, have from %v to %v", timeout, shortest, longest)
			}
		})
	}
}

// awaitEnd reads EOF, and nothing before it but what net/http says to who has begun a header.
func (c *counting) awaitEnd(within time.Duration) error {
	_ = c.conn.SetReadDeadline(time.Now().Add(within))
	said, err := io.ReadAll(c.reader)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("client %d: still open after %v", c.name, within)
	case err != nil:
		return fmt.Errorf("client %d: want EOF, have %w", c.name, err)
	case len(said) > 0 && !(c.begun && strings.HasPrefix(string(said), "HTTP/1.1 400 ")):
		return fmt.Errorf("client %d: want EOF, have %q", c.name, said)
	}
	return nil
}

// After a move, the time for a header begins with its first byte, and the time for an answer with the request.
func TestTimeoutsBeginAnewAfterAMove(t *testing.T) {
	const timeout = time.Second
	s := startService(t, config{Probation: -1, Drain: patience, ReadHeaderTimeout: timeout, WriteTimeout: timeout, IdleTimeout: patience})
	clients := dialManyCounting(t, s.address, 4)
	askAll(t, clients, s.pid())
	before := s.pid()
	s.hangup(2)
	awaitExit(t, before)
	<-time.After(timeout * 5 / 4) // longer than both, and that they were idle is all that counted

	var failed mishaps
	forAll(len(clients), func(i int) {
		c := clients[i]
		begun := time.Now()
		var err error
		switch i {
		case 0:
			_, _, err = c.ask()
		case 1: // an answer that takes some time
			if err = c.write([]byte("GET /slow?d=500ms HTTP/1.1\r\nHost: test\r\n\r\n")); err == nil {
				_, err = c.read()
			}
		case 2: // half a header
			if err = c.write([]byte("GET / HTTP/1.1\r\nHo")); err == nil {
				c.begun = true
				err = c.awaitEnd(timeout + tooLate)
			}
		case 3: // an answer that takes too long
			if err = c.write([]byte("GET /slow?d=1500ms HTTP/1.1\r\nHost: test\r\n\r\n")); err == nil {
				err = c.awaitEnd(timeout*3/2 + tooLate)
			}
		}
		if took := time.Since(begun); err == nil && i >= 2 && took < timeout {
			err = fmt.Errorf("want it to end after %v, have %v", timeout, took)
		}
		if err != nil {
			failed.add(fmt.Errorf("case %d: %w", i, err))
		}
	})
	failed.report(t)
}
