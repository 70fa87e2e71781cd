//go:build linux

package listener

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/segue-go/segue/internal/load"
	"github.com/segue-go/segue/internal/scm"
)

// server is a net/http server on a listener, as package restart runs one.
type server struct {
	ln   *Listener
	http *http.Server
}

// twoServers returns two servers whose Sets share one listening socket, as those of two processes do. The second is paused.
func twoServers(t testing.TB, configure func(*http.Server)) (first, second *server) {
	t.Helper()
	ctx := testContext(t)
	a, _ := newSet(t)
	la := must(a.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
	b, _ := newSet(t)
	handOverTo(t, a, b)
	lb := must(b.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
	lb.Pause()
	start := func(ln *Listener, number int) *server {
		s := &server{ln: ln, http: &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if d, err := time.ParseDuration(r.URL.Query().Get("d")); err == nil {
					<-time.After(d)
				}
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "generation %d pid %d %s%s\n", number, number, r.URL.Query().Get("n"), body)
			}),
			ConnState: func(c net.Conn, state http.ConnState) {
				switch state {
				case http.StateNew:
					c.(*Conn).MarkFresh()
				case http.StateIdle:
					c.(*Conn).MarkIdle()
				case http.StateHijacked:
					c.(*Conn).ClearBoundary()
				}
			},
		}}
		if configure != nil {
			configure(s.http)
		}
		go s.http.Serve(ln)
		go s.http.Serve(ln.Adopted())
		t.Cleanup(func() { ln.Adopted().Close(); s.http.Close() })
		return s
	}
	return start(la, 1), start(lb, 2)
}

// moveTo hands everything over, and returns when all connections have moved.
func (s *server) moveTo(t testing.TB, next *server) {
	t.Helper()
	s.ln.Pause()
	next.ln.Resume()
	s.ln.Detach(math.MaxInt, func(d *Detached, _ bool) {
		if d == nil {
			return // it comes at its next boundary
		}
		if err := next.ln.Adopt(d); err != nil {
			t.Error(err)
		}
	})
	if err := s.ln.WaitConns(testContext(t)); err != nil {
		t.Fatalf("%d connections did not move: %v", s.ln.Conns(), err)
	}
	s.ln.Retain()
}

func TestInvariant3ConnectionsMoveUnderLoad(t *testing.T) {
	for _, test := range []struct {
		name      string
		configure func(*http.Server)
	}{
		{"plain", nil},
		{"with timeouts", func(srv *http.Server) {
			// Longer than a slow machine takes for all of it: some clients are silent for the whole time, and would rightly be closed.
			srv.IdleTimeout, srv.ReadHeaderTimeout, srv.WriteTimeout = time.Minute, time.Minute, time.Minute
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			first, second := twoServers(t, test.configure)
			clients, err := load.Start(t.Context(), load.Config{
				Addr: first.ln.Addr().String(), KeepAlive: 60, Idle: 20, Fresh: 5, Interval: 2 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			for range 25 {
				first.moveTo(t, second)
				second.moveTo(t, first)
			}
			report := clients.Stop()
			if report.Failed != 0 || report.Reconnects != 0 {
				t.Errorf("want no failure and no reconnect in %d requests, have %d and %d: %q",
					report.Requests, report.Failed, report.Reconnects, report.Errors)
			}
			t.Logf("%d requests, pause max %v", report.Requests, report.LatencyMax)
		})
	}
}

// client is a connection that is written to in pieces.
type client struct {
	t      testing.TB
	conn   net.Conn
	reader *bufio.Reader
}

func dialServer(t testing.TB, s *server) *client {
	t.Helper()
	conn := must(net.Dial("tcp", s.ln.Addr().String()))(t)
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(within))
	return &client{t, conn, bufio.NewReader(conn)}
}

func (c *client) write(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads one answer, and wants it of that server and with that text.
func (c *client) expect(server int, text string) {
	c.t.Helper()
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		c.t.Fatalf("want an answer of server %d to %s, have %v", server, text, err)
	}
	body := must(io.ReadAll(response.Body))(c.t)
	if want, have := fmt.Sprintf("generation %d pid %d %s\n", server, server, text), string(body); want != have {
		c.t.Errorf("want %q, have %q", want, have)
	}
	if response.Close {
		c.t.Error("the server announced the end of the connection")
	}
}

// hasRead waits until the server has read all that was sent: nothing of it is in its socket's queue.
func (s *server) hasRead(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(100 * time.Microsecond) { // no event tells it
		waiting, conns := 0, s.ln.conns.all()
		for _, c := range conns {
			_ = control(c.inner, func(fd uintptr) {
				n, _ := unix.IoctlGetInt(int(fd), unix.SIOCINQ) // tcp(7)
				waiting += n
			})
		}
		if waiting == 0 && len(conns) > 0 { // else it was not accepted yet
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not read")
		}
	}
}

func get(n int) string { return fmt.Sprintf("GET /?n=%d HTTP/1.1\r\nHost: test\r\n\r\n", n) }

// What a client may have sent of its next request when its connection is to move. Nothing of it is lost or read twice, and each
// request is answered by the server that has begun to read it.
func TestInvariant5NoByteIsLostOnTheMove(t *testing.T) {
	post := "POST /?n=0 HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n"
	for _, test := range []struct {
		name   string
		before []string // sent one after the other, each read before the next
		moves  bool     // at once
		after  string   // sent after the move was asked for
		want   []string // answers, in order
		by     []int    // and who gives them
	}{
		{"nothing at all", nil, true, get(0), []string{"0"}, []int{2}},
		{"one request, answered", []string{get(0)}, true, get(1), []string{"0", "1"}, []int{1, 2}},
		{"half a first line", []string{"GET /?n=0 HT"}, false, "TP/1.1\r\nHost: test\r\n\r\n" + get(1), []string{"0", "1"}, []int{1, 1}},
		{"half a first header", []string{"GET /?n=0 HTTP/1.1\r\nHo"}, false, "st: test\r\n\r\n", []string{"0"}, []int{1}},
		{"a whole first line, alone", []string{"GET /?n=0 HTTP/1.1\r\n"}, false, "Host: test\r\n\r\n", []string{"0"}, []int{1}},
		{"half a second header", []string{get(0), "GET /?n=1 HTTP/1.1\r\nHo"}, false, "st: test\r\n\r\n", []string{"0", "1"}, []int{1, 1}},
		{"a whole second line, alone", []string{get(0), "GET /?n=1 HTTP/1.1\r\n"}, false, "Host: test\r\n\r\n", []string{"0", "1"}, []int{1, 1}},
		{"a second line in one packet with the first request", []string{get(0) + "GET /?n=1 HTTP/1.1\r\n"}, false,
			"Host: test\r\n\r\n", []string{"0", "1"}, []int{1, 1}},
		{"one byte of the second request", []string{get(0), "G"}, true, get(1)[1:], []string{"0", "1"}, []int{1, 2}},
		{"three bytes of the second request", []string{get(0), "GET"}, true, get(1)[3:], []string{"0", "1"}, []int{1, 2}},
		{"four bytes of the second request", []string{get(0), "GET "}, false, get(1)[4:], []string{"0", "1"}, []int{1, 1}},
		{"three bytes, each alone", []string{get(0), "G", "E", "T"}, true, get(1)[3:], []string{"0", "1"}, []int{1, 2}},
		{"a stray line end", []string{post + "abcd\r\n"}, true, get(1), []string{"0abcd", "1"}, []int{1, 2}},
		{"one byte in one packet with the first request", []string{get(0) + "G"}, true, get(1)[1:], []string{"0", "1"}, []int{1, 2}},
		{"three requests at once", []string{get(0) + get(1) + get(2)}, true, get(3), []string{"0", "1", "2", "3"}, []int{1, 1, 1, 2}},
		{"half a body", []string{post + "ab"}, false, "cd", []string{"0abcd"}, []int{1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			first, second := twoServers(t, nil)
			c := dialServer(t, first)
			answered := 0
			for _, text := range test.before {
				c.write(text)
				first.hasRead(t)
				for answered < len(test.want) && test.by[answered] == 1 && strings.Contains(text, "Host") && answered < requestsIn(test.before) {
					c.expect(1, test.want[answered])
					answered++
				}
			}
			moved := make(chan struct{})
			go func() { defer close(moved); first.moveTo(t, second) }()
			if test.moves {
				<-moved
			}
			c.write(test.after)
			for ; answered < len(test.want); answered++ {
				c.expect(test.by[answered], test.want[answered])
			}
			<-moved // at the end of what it was busy with, at the latest
			c.write(get(9))
			c.expect(2, "9")
		})
	}
}

// requestsIn counts the requests that are whole in what was sent.
func requestsIn(sent []string) int {
	text := strings.Join(sent, "")
	n := strings.Count(text, "\r\n\r\n")
	if strings.HasPrefix(text, "POST") && !strings.Contains(text, "abcd") {
		n--
	}
	return n
}

// A client may send its request in the very instant in which its connection is taken out of the server.
func TestInvariant5RequestInTheInstantOfTheMove(t *testing.T) {
	moves := 2000
	if testing.Short() {
		moves = 200
	}
	servers := [2]*server{}
	servers[0], servers[1] = twoServers(t, nil)
	c := dialServer(t, servers[0])
	_ = c.conn.SetDeadline(time.Time{})
	for n := range moves {
		var both sync.WaitGroup
		both.Go(func() { servers[n%2].moveTo(t, servers[(n+1)%2]) })
		both.Go(func() {
			for range n % 97 { // offsets of some 10 ns
				_ = fmt.Sprint()
			}
			c.write(get(n))
		})
		response, err := http.ReadResponse(c.reader, nil)
		if err != nil {
			t.Fatalf("move %d: %v", n, err)
		}
		body := must(io.ReadAll(response.Body))(t)
		if want := fmt.Sprintf(" %d\n", n); !strings.HasSuffix(string(body), want) || response.Close {
			t.Fatalf("move %d: want an answer to it, have %q, close %v", n, body, response.Close)
		}
		both.Wait()
	}
}

// A request that came before the deadline is answered, even if the deadline passed while the connection was on its way.
func TestInvariant3RequestThatCameInTimeWhileTheDeadlinePassed(t *testing.T) {
	first, second := twoServers(t, func(srv *http.Server) { srv.IdleTimeout = 10 * time.Second })
	c := dialServer(t, first)
	c.write(get(1))
	c.expect(1, "1")
	first.ln.Pause()
	first.ln.Detach(math.MaxInt, func(d *Detached, _ bool) {
		d.Left = expired
		c.write(get(2))
		if err := second.ln.Adopt(d); err != nil {
			t.Error(err)
		}
	})
	c.expect(2, "2")
}

// The same if the adopter comes to read it only long after that.
func TestInvariant3RequestThatCameInTimeOnABusyMachine(t *testing.T) {
	var slow atomic.Bool
	first, second := twoServers(t, func(srv *http.Server) {
		srv.IdleTimeout = 10 * time.Second
		observe := srv.ConnState
		srv.ConnState = func(c net.Conn, state http.ConnState) {
			if observe(c, state); state == http.StateNew && slow.Load() {
				<-time.After(3 * grace)
			}
		}
	})
	c := dialServer(t, first)
	c.write(get(1))
	c.expect(1, "1")
	slow.Store(true)
	first.ln.Pause()
	first.ln.Detach(math.MaxInt, func(d *Detached, _ bool) {
		d.Left = expired
		c.write(get(2))
		if err := second.ln.Adopt(d); err != nil {
			t.Error(err)
		}
	})
	c.expect(2, "2")
}

func TestIdleTimeoutGoesOnAfterTheMove(t *testing.T) {
	const idle = 400 * time.Millisecond
	first, second := twoServers(t, func(srv *http.Server) { srv.IdleTimeout, srv.ReadHeaderTimeout = idle, 10*time.Second })
	c := dialServer(t, first)
	c.write(get(0))
	c.expect(1, "0")
	answered := time.Now()
	first.moveTo(t, second)
	if _, err := c.reader.ReadByte(); err != io.EOF {
		t.Fatalf("want the end of the idle connection, have %v", err)
	}
	if lasted := time.Since(answered); lasted < idle-50*time.Millisecond || lasted > idle+5*time.Second {
		t.Errorf("want it closed after %v, have %v", idle, lasted)
	}
}

func TestOptionsMoveWithTheConnection(t *testing.T) {
	first, second := twoServers(t, nil)
	keepAlive := net.KeepAliveConfig{Enable: true, Idle: 33 * time.Second, Interval: 7 * time.Second, Count: 5}
	c := dialServer(t, first)
	c.write(get(0))
	c.expect(1, "0")
	for _, conn := range first.ln.conns.all() {
		tcp := conn.NetConn().(*net.TCPConn)
		if err := errors.Join(tcp.SetNoDelay(false), tcp.SetKeepAliveConfig(keepAlive)); err != nil {
			t.Fatal(err)
		}
	}
	first.moveTo(t, second)
	moved := second.ln.conns.all()
	if len(moved) != 1 {
		t.Fatalf("want 1 connection, have %d", len(moved))
	}
	want := ConnOptions{TCP: true, KeepAlive: keepAlive}
	if have := connOptions(moved[0].inner); want != have {
		t.Errorf("want %+v, have %+v", want, have)
	}
}

func TestAdoptRefusesWhatIsNoConnection(t *testing.T) {
	first, _ := twoServers(t, nil)
	leavesNoFD(t, func() {
		var pipe [2]int
		if err := unix.Pipe(pipe[:]); err != nil {
			t.Fatal(err)
		}
		var pair [2]int
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(pipe[1])
		unix.Close(pair[1])
		for name, fd := range map[string]int{"pipe": pipe[0], "unix connection for a tcp listener": pair[0]} {
			if err := first.ln.Adopt(&Detached{Descriptor: scm.NewDescriptor(fd)}); !errors.Is(err, ErrAdopt) {
				t.Errorf("%s: want ErrAdopt, have %v", name, err)
			}
		}
	})
}

// A connection that stays is as it was: the server's deadlines hold, requests are answered.
func TestRetainedConnectionsGoOn(t *testing.T) {
	first, _ := twoServers(t, func(srv *http.Server) { srv.IdleTimeout = 10 * time.Second })
	c := dialServer(t, first)
	for n := range 50 {
		c.write(fmt.Sprintf("GET /?n=%d&d=1ms HTTP/1.1\r\nHost: test\r\n\r\n", n))
		first.hasRead(t)
		first.ln.Detach(math.MaxInt, func(d *Detached, _ bool) { // back at once
			if d == nil {
				return
			}
			if err := first.ln.Adopt(d); err != nil {
				t.Error(err)
			}
		})
		first.ln.Retain()
		c.expect(1, fmt.Sprint(n))
	}
}
