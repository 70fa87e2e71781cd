//go:build linux

package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"
)

// promotionWithin is what is promised when the predecessor dies: until the successor serves.
const promotionWithin = time.Second

// The predecessor may die at any moment after the successor has the listeners: the successor serves.
func TestInvariant2DeathOfThePredecessorPromotesItsSuccessor(t *testing.T) {
	for _, test := range []struct {
		name string
		// kill brings it about, and returns the successor.
		kill func(s *service) (successor int)
	}{
		{"before ready", func(s *service) int {
			s.setFault("stop before ready") // it has the listeners then
			first := s.pid()
			s.signal(first, syscall.SIGHUP)
			successor := s.awaitChild(first)
			awaitState(s.t, successor, "T")
			s.signal(first, syscall.SIGKILL)
			awaitExit(s.t, first)
			s.signal(successor, syscall.SIGCONT)
			return successor
		}},
		{"on probation", func(s *service) int {
			first := s.pid()
			s.signal(first, syscall.SIGHUP)
			successor := s.await("probation", func(l line) bool { return l.Message == "serving on probation" }).PID
			s.signal(first, syscall.SIGKILL)
			return successor
		}},
		{"while it is stopped on probation", func(s *service) int {
			first := s.pid()
			s.signal(first, syscall.SIGHUP)
			successor := s.await("probation", func(l line) bool { return l.Message == "serving on probation" }).PID
			s.signal(first, syscall.SIGSTOP)
			s.signal(first, syscall.SIGKILL)
			return successor
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startService(t, config{Probation: patience, Unix: true})
			successor := test.kill(s)
			killed := time.Now()
			if generation, pid := s.serving(); generation != 2 || pid != successor {
				t.Errorf("want generation 2 of pid %d, have generation %d of pid %d", successor, generation, pid)
			}
			if took := time.Since(killed); took > promotionWithin {
				t.Errorf("want an answer within %v, have %v", promotionWithin, took)
			}
			s.await("promotion", func(l line) bool { return l.Message == "serving" && l.Generation == 2 })
			if want, have := successor, s.pid(); want != have {
				t.Errorf("PID file: want %d, have %d", want, have)
			}
			// It is a full generation: it upgrades, and cleans up.
			s.setFault("")
			s.config.Probation = 0
			mark := s.mark()
			s.signal(s.pid(), syscall.SIGHUP)
			s.awaitAfter(mark, "third generation", func(l line) bool { return l.Message == "serving on probation" && l.Generation == 3 })
			s.signal(s.pid(), syscall.SIGKILL)
			s.await("third generation", func(l line) bool { return l.Message == "serving" && l.Generation == 3 })
			last := s.pid()
			s.signal(last, syscall.SIGTERM)
			awaitExit(t, last)
			if _, err := net.Dial("unix", s.config.unixSocket()); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("unix socket: want it unlinked, have %v", err)
			}
		})
	}
}

func (s *service) awaitChild(parent int) int {
	s.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, p := range processes() {
			if p.parent == parent {
				return p.pid
			}
		}
	}
	s.t.Fatalf("process %d made no child", parent)
	return 0
}

// The same at moments that nobody chose. If the successor had started, somebody serves.
func TestInvariant2DeathOfThePredecessorAtRandomMoments(t *testing.T) {
	tries := 30
	if testing.Short() {
		tries = 5
	}
	served := 0
	for range tries {
		func() {
			s := startService(t, config{Probation: 10 * time.Millisecond, Address: freeAddress(t)})
			offset := rand.N(40 * time.Millisecond)
			first := s.pid()
			mark := s.mark()
			s.signal(first, syscall.SIGHUP)
			moment, cancel := context.WithTimeout(t.Context(), offset)
			defer cancel()
			<-moment.Done()
			s.signal(first, syscall.SIGKILL)
			awaitExit(t, first)
			started := false
			for _, l := range s.linesAfter(mark) {
				started = started || l.Message == "started" && l.Generation == 2
			}
			if !started {
				return // it died before there was anybody to serve
			}
			served++
			s.awaitAfter(mark, "second generation", func(l line) bool { return l.Message == "serving" && l.Generation == 2 })
			if generation, _ := s.serving(); generation != 2 {
				t.Errorf("killed after %v: want generation 2, have %d", offset, generation)
			}
		}()
	}
	t.Logf("of %d, %d after the successor had started", tries, served)
}

// freeAddress is one that nobody listens on now, and that no client gets meanwhile: those connect from 127.0.0.1, and each of these
// addresses is another one of loopback's (all of 127.0.0.0/8 is the host itself: ip(7)).
func freeAddress(t *testing.T) string {
	t.Helper()
	host := net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254)))
	ln, err := net.Listen("tcp", net.JoinHostPort(host.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
