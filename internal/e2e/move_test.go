//go:build linux

package e2e

import (
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/load"
)

// A thousand clients that say nothing for the whole time are with the last generation in the end, over the connection that each
// of them began with.
func TestInvariant3IdleConnectionsMoveThroughEachUpgrade(t *testing.T) {
	const clients, upgrades = 1000, 5
	s := startService(t, config{Probation: -1, Drain: patience, UpgradeTimeout: patience})
	conns := make([]*keptConn, clients)
	for i := range conns {
		conns[i] = dialKept(t, s.address)
		if i%2 == 0 { // the others have never said anything
			conns[i].ask(s.pid())
		}
	}
	for number := 2; number <= upgrades+1; number++ {
		before := s.pid()
		s.hangup(number)
		awaitExit(t, before)
		s.await("move", func(l line) bool { return l.PID == before && strings.Contains(l.raw, `"moved":1000`) })
	}
	for _, c := range conns {
		if c.ask(s.pid()); c.closed {
			t.Fatal("the end of the connection was announced")
		}
	}
}

// A server full of connections, some of them busy: all of them move, five times in a row, and nobody waits long.
func TestInvariant3ThousandsOfConnectionsMove(t *testing.T) {
	clients, busy, upgrades := 14_900/slowdown, 100, 5
	if testing.Short() {
		clients = 1000
	}
	s := startService(t, config{Probation: time.Second, Drain: patience, UpgradeTimeout: patience})
	idle := make([]*keptConn, clients)
	for i := range idle {
		idle[i] = dialKept(t, s.address)
		idle[i].ask(s.pid())
	}
	active, err := load.Start(t.Context(), load.Config{Addr: s.address, KeepAlive: busy, Interval: 20 * time.Millisecond * slowdown})
	if err != nil {
		t.Fatal(err)
	}
	for number := 2; number <= upgrades+1; number++ {
		before := s.pid()
		end := active.Mark()
		s.hangup(number)
		awaitExit(t, before)
		end()
		line := s.await("move", func(l line) bool { return l.PID == before && l.Message == "connections moved" })
		if line.Moved != clients+busy {
			t.Errorf("moved: want %d, have %d", clients+busy, line.Moved)
		}
		t.Logf("%d connections: %v each, out of their server for %v at P50, %v at P99",
			line.Moved, (line.Moving / time.Duration(max(line.Moved, 1))).Round(100*time.Nanosecond), line.PauseP50, line.PauseP99)
	}
	report := active.Stop()
	t.Logf("busy clients: %d requests, %d reconnects; pause p50 %v p99 %v max %v", report.Requests, report.Reconnects,
		report.PauseP50, report.PauseP99, report.PauseMax)
	if report.Failed != 0 || report.Reconnects != 0 {
		t.Errorf("want no failure and no reconnect, have %d and %d: %q", report.Failed, report.Reconnects, report.Errors)
	}
	for _, c := range idle {
		if c.ask(s.pid()); c.closed {
			t.Fatal("the end of the connection was announced")
		}
	}
}

// A successor that has fewer descriptors than its predecessor is not given more than it has room for; the others are served on, and
// told to come again after the commit.
func TestInvariant3NoMoreConnectionsMoveThanThereIsRoomFor(t *testing.T) {
	const clients, descriptors = 600, 300
	s := startService(t, config{Probation: 500 * time.Millisecond, Drain: patience, Descriptors: descriptors})
	first := s.pid()
	conns := make([]*keptConn, clients)
	for i := range conns {
		conns[i] = dialKept(t, s.address)
		conns[i].ask(first)
	}
	second := s.hangup(2).PID
	s.await("handover", func(l line) bool { return l.PID == first && l.Message == "handed over" })
	moved := 0
	for _, c := range conns {
		asked, generation := 0, 0
		for ; generation != 2 && !c.closed && asked < 10_000; asked++ { // one that was answered before the first began to leave is asked again
			generation = c.ask(0)
		}
		if !c.closed {
			moved++
			c.ask(second)
			continue
		}
		if _, err := c.reader.ReadByte(); err != io.EOF {
			t.Errorf("after the end was announced: want EOF, have %v", err)
		}
	}
	awaitExit(t, first)
	if moved < descriptors/2 || moved > descriptors {
		t.Errorf("moved: want less than the %d descriptors that the successor may have, and most of them, have %d", descriptors, moved)
	}
	again := dialKept(t, s.address)
	again.ask(second)
}

// With Options.Spread the connections move over that time, and not in one burst.
func TestSpreadTakesItsTime(t *testing.T) {
	const spread = 500 * time.Millisecond
	s := startService(t, config{Probation: 2 * spread, Drain: patience, Spread: spread})
	first := s.pid()
	conns := make([]*keptConn, 200)
	for i := range conns {
		conns[i] = dialKept(t, s.address)
		conns[i].ask(first)
	}
	second := s.hangup(2).PID
	awaitExit(t, first)
	line := s.await("move", func(l line) bool { return l.PID == first && l.Message == "connections moved" })
	if line.Moved != len(conns) || line.Moving < spread/2 {
		t.Errorf("want %d connections moved in %v or not much less, have %d in %v", len(conns), spread, line.Moved, line.Moving)
	}
	for _, c := range conns {
		c.ask(second)
	}
}

// What the successor does not take goes back to its owner, which serves it on and announces its end: no request fails.
func TestInvariant3ConnectionsThatAreNotTakenGoBack(t *testing.T) {
	for _, test := range []struct{ name, impostor string }{
		{"refused", "refuses-connections"},
		{"never answered", "ignores-connections"},
		{"successor hangs with descriptors that it never read", "hangs-on-connections"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startService(t, config{Probation: -1, Drain: patience})
			first := s.pid()
			conns := make([]*keptConn, 300) // more than one batch
			for i := range conns {
				conns[i] = dialKept(t, s.address)
				conns[i].ask(first)
			}
			s.installImpostor(test.impostor)
			s.signal(first, syscall.SIGHUP)
			s.await("handover", func(l line) bool { return l.Message == "handed over" })
			s.await("offers in vain", func(l line) bool {
				return l.PID == first && (l.Message == "connections are not moved any more" || l.Message == "connections stay")
			})
			var asking sync.WaitGroup
			for _, c := range conns {
				asking.Go(func() {
					for asked := 0; !c.closed && asked < 10_000; asked++ {
						c.ask(first)
					}
					if _, err := c.reader.ReadByte(); !c.closed || err != io.EOF {
						t.Errorf("want the end announced and then EOF, have announced %v, %v", c.closed, err)
					}
				})
			}
			asking.Wait()
			awaitExit(t, first)
		})
	}
}

// When the predecessor dies while it moves its connections, each of them is with the successor or gone, and none with both.
func TestInvariant1DeathOfThePredecessorWhileConnectionsMove(t *testing.T) {
	s := startService(t, config{Probation: -1, Drain: patience, Address: freeAddress(t)})
	first := s.pid()
	conns := make([]*keptConn, 600)
	for i := range conns {
		conns[i] = dialKept(t, s.address)
		conns[i].ask(first)
	}
	s.signal(first, syscall.SIGHUP)
	s.await("handover", func(l line) bool { return l.Message == "handed over" })
	s.signal(first, syscall.SIGKILL) // right after the commit: in the middle of it
	awaitExit(t, first)
	second := s.await("second generation", func(l line) bool { return l.Message == "serving" && l.Generation == 2 }).PID
	moved := 0
	for _, c := range conns {
		_ = c.conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c.conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
			continue // gone with the first
		}
		if _, err := c.reader.Peek(1); err != nil {
			continue
		}
		c.answer(second)
		moved++
	}
	t.Logf("%d of %d had moved", moved, len(conns))
	if generation, pid := s.serving(); generation != 2 || pid != second {
		t.Errorf("want generation 2 of pid %d, have generation %d of pid %d", second, generation, pid)
	}
}
