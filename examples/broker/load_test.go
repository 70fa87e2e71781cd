//go:build linux

package broker

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/load"
)

// get asks over a connection of its own.
func get(address string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return ask(conn)
}

func ask(conn net.Conn) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		return "", err
	}
	return answer(conn)
}

func answer(conn net.Conn) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(patience))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

// crowd makes requests, each on a connection of its own, until there were n.
func crowd(t *testing.T, address string, n int64) load.Report {
	t.Helper()
	crowd, err := load.Start(t.Context(), load.Config{Addr: address, Fresh: 32, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	for crowd.Snapshot().Requests < n && t.Context().Err() == nil {
		time.Sleep(10 * time.Millisecond) // there is no event
	}
	return crowd.Stop()
}

func expectNoFailures(t *testing.T, report load.Report) {
	t.Helper()
	if report.Failed > 0 || report.Requests == 0 {
		t.Errorf("%d of %d requests failed: %s", report.Failed, report.Requests, strings.Join(report.Errors, "; "))
	}
}

// At full load no client notices that its connection is handed over, and both processes end with the descriptors that they began with.
func TestInvariant8HundredThousandHandoffs(t *testing.T) {
	handoffs := int64(100_000)
	if raceEnabled {
		handoffs = 10_000 // the race detector takes a tenth of a machine's speed for all three processes
	}
	backend, socket := startBackend(t)
	front := start(t, "front", "-listen", "127.0.0.1:0", "-backend", socket, "-reconnect", backend.addr)
	expectNoFailures(t, crowd(t, front.addr, 1000)) // until all that is made once is made
	frontBefore, backendBefore := front.descriptors(), backend.descriptors()
	began := time.Now()
	report := crowd(t, front.addr, handoffs)
	took := time.Since(began)
	expectNoFailures(t, report)
	t.Logf("%d handoffs in %v, %.0f per second; from connect to the last byte of the answer %v at P50, %v at P99", report.Requests, took,
		float64(report.Requests)/took.Seconds(), report.LatencyP50, report.LatencyP99)
	if have := report.Answers(backend.cmd.Process.Pid); have != report.Requests {
		t.Errorf("want %d answers of the backend, have %d", report.Requests, have)
	}
	front.settles(frontBefore)
	backend.settles(backendBefore)
	done := front.stop()
	if done.lost > 0 || done.handedOver+done.reconnected != done.accepted || done.reconnected*100 > done.accepted {
		t.Errorf("want (nearly) all handed over, have %+v", done)
	}
	t.Logf("%+v", done)
}
