//go:build linux

package broker

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/load"
)

// stopped waits until a process has come to a stop.
func (p *program) stopped() {
	p.t.Helper()
	for late := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // nobody tells
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if err != nil || time.Now().After(late) {
			p.t.Fatalf("not stopped: %s, %v", stat, err)
		}
		if _, after, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(after, "T") {
			return
		}
	}
}

// by is the last word of an answer: the pid.
func by(p *program) string { return fmt.Sprintf(" pid %d\n", p.cmd.Process.Pid) }

// answersOf asks until a backend answers. On a busy machine it may take longer to reach it than a client is made to wait.
func answersOf(t *testing.T, front, backend *program) {
	t.Helper()
	for late := time.Now().Add(patience); ; {
		have, err := get(front.addr)
		if err != nil || time.Now().After(late) {
			t.Fatalf("want an answer of the backend with%s have %q, %v", by(backend), have, err)
		}
		if strings.HasSuffix(have, by(backend)) {
			return
		}
	}
}

// Connections that a backend has not acknowledged when it is killed are answered by another one, and the front finds its successor.
func TestInvariant3KilledWithOffersUnanswered(t *testing.T) {
	victim, socket := startBackend(t)
	other, _ := startBackend(t)
	front := start(t, "front", "-listen", "127.0.0.1:0", "-backend", socket, "-reconnect", other.addr)
	answersOf(t, front, victim) // from here there is a socket between the two
	victim.signal(syscall.SIGSTOP)
	victim.stopped()
	const clients = 40 // fewer than the window, so that all are offered
	before := front.descriptors()
	conns := make([]net.Conn, clients)
	for i := range conns {
		conn, err := net.Dial("tcp", front.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		conns[i] = conn
	}
	for late := time.Now().Add(patience); front.descriptors() < before+clients; time.Sleep(time.Millisecond) { // until all are accepted
		if time.Now().After(late) {
			t.Fatal("front does not accept")
		}
	}
	victim.signal(syscall.SIGKILL)
	for i, conn := range conns {
		if have, err := answer(conn); err != nil || !strings.HasSuffix(have, by(other)) {
			t.Errorf("client %d: want an answer of the other one, have %q, %v", i, have, err)
		}
		_ = conn.Close()
	}
	answersOf(t, front, startBackendAt(t, socket, "127.0.0.1:0"))
	if done := front.stop(); done.lost != 0 || done.reconnected < clients {
		t.Errorf("want %d reconnected at least, have %+v", clients, done)
	}
}

// A backend is killed at full load. What it has not acknowledged is answered, all of it: those that fail are those that it had acknowledged
// and not answered, and no more.
func TestInvariant1And3KilledAtFullLoad(t *testing.T) {
	for round := range 3 {
		victim, socket := startBackend(t)
		other, _ := startBackend(t)
		front := start(t, "front", "-listen", "127.0.0.1:0", "-backend", socket, "-reconnect", other.addr)
		var answers, refuge, failed, made atomic.Int64
		var over atomic.Bool
		var crowd sync.WaitGroup
		for range 32 {
			crowd.Go(func() {
				for !over.Load() {
					have, err := get(front.addr)
					switch made.Add(1); {
					case err != nil:
						failed.Add(1)
					case strings.HasSuffix(have, by(victim)):
						answers.Add(1)
					case strings.HasSuffix(have, by(other)):
						refuge.Add(1)
					default:
						t.Errorf("answer %q", have)
					}
				}
			})
		}
		await := func(what string, n *atomic.Int64, least int64) {
			for late := time.Now().Add(patience); n.Load() < least; time.Sleep(time.Millisecond) { // there is no event
				if time.Now().After(late) {
					t.Errorf("%d %s within %v, want %d", n.Load(), what, patience, least)
					return
				}
			}
		}
		await("answers of the backend", &answers, 300+int64(round)*37)
		victim.signal(syscall.SIGKILL)
		await("answers of the other one", &refuge, 300)
		over.Store(true)
		crowd.Wait()
		done := front.stop()
		t.Logf("%d requests: %d answered by the backend, %d by the other one, %d failed; %+v", made.Load(), answers.Load(), refuge.Load(), failed.Load(), done)
		if want := int64(done.handedOver) - answers.Load(); failed.Load() != want {
			t.Errorf("want %d failed, that were acknowledged and not answered, have %d", want, failed.Load())
		}
		if refuge.Load() != int64(done.reconnected) || done.lost != 0 {
			t.Errorf("want %d answered by the other one, have %d", done.reconnected, refuge.Load())
		}
	}
}

// Several backends share the connections, and one of them is upgraded again and again at full load.
func TestInvariant2BackendUpgradesUnderLoad(t *testing.T) {
	const upgrades = 3
	arguments := []string{"-listen", "127.0.0.1:0"}
	var backends []*program
	var upgraded string
	for range 3 {
		backend, socket := startBackend(t, "-drain", "10s")
		backends = append(backends, backend)
		arguments = append(arguments, "-backend", socket, "-reconnect", backend.addr)
		upgraded = socket
	}
	front := start(t, "front", arguments...)
	busy := load.Config{Addr: front.addr, KeepAlive: 20, Post: 10, Body: 1000, Fresh: 10, Idle: 100, Interval: 2 * time.Millisecond, Timeout: patience}
	if raceEnabled {
		busy.Interval = 20 * time.Millisecond
	}
	crowd, err := load.Start(t.Context(), busy)
	if err != nil {
		t.Fatal(err)
	}
	chain := backends[len(backends)-1]
	for generation := 2; generation <= upgrades+1; generation++ {
		signalIn(t, upgraded+".pid", syscall.SIGHUP)
		chain.await(fmt.Sprintf(`msg=serving .*generation=%d`, generation))
		chain.await(fmt.Sprintf(`msg=done .*generation=%d`, generation-1)) // it has nobody left
	}
	report := crowd.Stop()
	expectNoFailures(t, report)
	if report.Reconnects > 0 {
		t.Errorf("want no client to notice, have %d that did", report.Reconnects)
	}
	for generation := 1; generation <= upgrades+1; generation++ {
		answers := int64(0)
		for line, n := range report.Pids {
			if strings.HasPrefix(line, fmt.Sprintf("generation %d ", generation)) {
				answers += n
			}
		}
		if answers == 0 {
			t.Errorf("no answer of generation %d: %v", generation, report.Pids)
		}
	}
	for _, backend := range backends[:len(backends)-1] {
		if report.Answers(backend.cmd.Process.Pid) == 0 {
			t.Errorf("no answer of a backend that is not upgraded: %v", report.Pids)
		}
	}
	done := front.stop()
	t.Logf("%d requests, %v: %+v", report.Requests, report.Pids, done)
	if done.lost != 0 || done.reconnected*20 > done.accepted {
		t.Errorf("want nearly all handed over, have %+v", done)
	}
}
