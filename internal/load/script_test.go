package load

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const good = "HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\ngeneration 3 pid 7\n"

// turn is what a script sees of one request: the how-manieth of the server and of its connection, both from 1.
type turn struct {
	net.Conn
	*http.Request
	total, ofConn int
}

func (t turn) say(s string) { io.WriteString(t.Conn, s) }

// reset closes the connection with RST.
func (t turn) reset() {
	t.Conn.(*net.TCPConn).SetLinger(0)
	t.Conn.Close()
}

// scripted is a server of raw connections. The script answers each request and returns false to close the connection.
type scripted struct {
	net.Listener
	total  atomic.Int64
	conns  atomic.Int64
	ended  atomic.Int64  // connections that the client closed
	passed chan struct{} // closed at the request that has the number enough
	run    func(turn) (on bool)
	enough int64
	wg     sync.WaitGroup
}

func serve(t *testing.T, enough int, script func(turn) bool) *scripted {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{Listener: ln, run: script, passed: make(chan struct{}), enough: int64(enough)}
	s.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			s.wg.Go(func() { s.talk(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		s.wg.Wait()
	})
	return s
}

func (s *scripted) talk(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for n := 1; ; n++ {
		req, err := http.ReadRequest(r)
		if err != nil {
			s.ended.Add(1)
			return
		}
		total := s.total.Add(1)
		on := s.run(turn{conn, req, int(total), n})
		if total == s.enough {
			close(s.passed)
		}
		if !on {
			return
		}
	}
}

// within runs a load until the server has had enough requests.
func (s *scripted) within(t *testing.T, cfg Config) Report {
	t.Helper()
	cfg.Addr = s.Addr().String()
	l, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.passed:
	case <-time.After(20 * time.Second):
		t.Errorf("only %d requests in 20 s", s.total.Load())
	}
	return l.Stop()
}

func causesOf(r Report) string {
	return fmt.Sprintf("failed %d: refused %d, closed %d, aborted %d, timed out %d, wrong %d; reconnects %d",
		r.Failed, r.Refused, r.Closed, r.Aborted, r.TimedOut, r.Wrong, r.Reconnects)
}

func announced(answer string) string {
	return strings.Replace(answer, "\r\n", "\r\nConnection: close\r\n", 1)
}

func say(s string, on bool) func(turn) bool {
	return func(t turn) bool {
		t.say(s)
		return on
	}
}

func reset(s string) func(turn) bool {
	return func(t turn) bool {
		t.say(s)
		if s != "" { // let it arrive: RST makes the receiver drop what it has not read
			time.Sleep(20 * time.Millisecond)
		}
		t.reset()
		return false
	}
}

// late answers, and speaks again a while after that.
func late(s string) func(turn) bool {
	return func(t turn) bool {
		t.say(s)
		time.AfterFunc(50*time.Millisecond, func() { t.say(s) })
		return true
	}
}

// echoed echoes the request, and spoils the answer if it is to. An answer that got shorter without saying so in its header
// ends with the connection.
func echoed(spoil func(string) string) func(turn) bool {
	return func(t turn) bool {
		body, err := io.ReadAll(t.Body)
		if err != nil {
			return false
		}
		answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		if spoil != nil {
			answer = spoil(answer)
		}
		t.say(answer)
		header, rest, _ := strings.Cut(answer, "\r\n\r\n")
		return strings.Contains(header, fmt.Sprintf("Content-Length: %d", len(rest)))
	}
}
