//go:build linux

package listener

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// A client may keep so many requests in flight that the server always has a part of the next in its buffer. Its connection
// moves all the same, after no more requests than the buffer holds.
func TestInvariant3APipelineThatNeverRunsDryMoves(t *testing.T) {
	for _, size := range []int{77, 333, 1000, 5000} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(fmt.Sprintf("%s of %d bytes", method, size), func(t *testing.T) {
				const moves = 10
				var handled atomic.Int64
				flows := make(chan struct{}) // each hundredth request
				first, second := twoServers(t, func(srv *http.Server) {
					handler := srv.Handler
					srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if handled.Add(1)%100 == 0 {
							select {
							case flows <- struct{}{}:
							default:
							}
						}
						handler.ServeHTTP(w, r)
					})
				})
				conn := must(net.Dial("tcp", first.ln.Addr().String()))(t)
				defer conn.Close()
				stop := make(chan struct{})
				sent, answered := make(chan error, 1), make(chan error, 1)
				inFlight := make(chan int, max(200, 200_000/size))
				go func() { sent <- flood(conn, method, size, inFlight, stop) }()
				go func() { answered <- drink(conn, method, inFlight) }()
				servers := []*server{first, second}
				for i := range moves {
					select {
					case <-flows:
					case <-testContext(t).Done():
						t.Fatal("nothing is answered any more")
					}
					from, to := servers[i%2], servers[(i+1)%2]
					from.ln.Pause()
					to.ln.Resume()
					atMove := int64(0)
					from.ln.Detach(math.MaxInt, func(d *Detached, _ bool) {
						if d == nil {
							return // it was asked, and a request began
						}
						atMove = handled.Load()
						if err := to.ln.Adopt(d); err != nil {
							t.Error(err)
						}
					})
					atDetach := handled.Load()
					if err := from.ln.WaitConns(testContext(t)); err != nil {
						t.Fatalf("move %d: %v", i, err)
					}
					from.ln.Retain()
					if want, have := int64(2*serverBuffer/size+10), atMove-atDetach; have > want {
						t.Errorf("move %d: want it after %d requests more, have %d", i, want, have)
					}
				}
				close(stop)
				if err := <-sent; err != nil {
					t.Error(err)
				}
				if err := <-answered; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// flood writes requests of that size, as many as inFlight has room for, until stop.
func flood(conn net.Conn, method string, size int, inFlight chan<- int, stop <-chan struct{}) error {
	defer close(inFlight)
	var out bytes.Buffer
	for n := 0; ; n++ {
		select {
		case <-stop:
			_, err := conn.Write(out.Bytes())
			return err
		case inFlight <- n:
		}
		request := fmt.Sprintf("%s /?n=%06d HTTP/1.1\r\nHost: a\r\n", method, n)
		if method == "POST" {
			request += "Content-Length: 2\r\nX:"
		} else {
			request += "X:"
		}
		request += strings.Repeat("x", max(0, size-len(request)-6)) + "\r\n\r\n"
		if method == "POST" {
			request += "ab"
		}
		out.WriteString(request)
		if len(inFlight) == cap(inFlight) || out.Len() > 1<<15 {
			if _, err := conn.Write(out.Bytes()); err != nil {
				return err
			}
			out.Reset()
		}
	}
}

// drink reads the answers, in order.
func drink(conn net.Conn, method string, inFlight <-chan int) error {
	defer conn.Close() // ends flood if it fails
	reader := bufio.NewReader(conn)
	for n := range inFlight {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return fmt.Errorf("answer %d: %w", n, err)
		}
		var body bytes.Buffer
		if _, err := body.ReadFrom(response.Body); err != nil {
			return fmt.Errorf("answer %d: %w", n, err)
		}
		want := fmt.Sprintf("%06d", n)
		if method == "POST" {
			want += "ab"
		}
		if !strings.HasSuffix(body.String(), " "+want+"\n") || response.Close {
			return fmt.Errorf("answer %d: want %s, have %q, announced end %v", n, want, &body, response.Close)
		}
	}
	return nil
}
