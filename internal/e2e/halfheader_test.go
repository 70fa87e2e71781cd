//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// A client may write half a header, wait until the successor is committed, and then write the rest. Whoever answers, the
// connection is the same, and it moves then if it has not. In every other round the server is known to have read all the halves
// before the upgrade begins; in the others they come while it is under way, the connections' moves included.
func TestInvariant5HalvesOfHeadersWaitThroughUpgrades(t *testing.T) {
	count, rounds := 400/slowdown, 8
	if testing.Short() {
		rounds = 4
	}
	s := startService(t, config{Probation: 20 * time.Millisecond, Drain: patience})
	clients := dialManyCounting(t, s.address, count)
	askAll(t, clients, s.pid())
	answers, byPredecessor := 0, 0
	length := 100 * time.Millisecond // of the upgrade, as far as is known
	for round := range rounds {
		before := s.pid()
		for i := range count / 4 { // these begin with half a header
			clients[i].conn.Close()
			clients[i] = dialCounting(t, s.address, i)
		}
		halves := make([]half, count)
		for i, c := range clients {
			halves[i] = cut(c.next(sizes[rand.IntN(len(sizes))]), round*count+i)
		}
		early := round%2 == 0
		var failed mishaps
		start, within := time.Now(), length
		begin := func() {
			forAll(count, func(i int) {
				if !early {
					time.Sleep(time.Until(start.Add(rand.N(within)))) // the offset is the point
				}
				failed.add(clients[i].write(halves[i].first))
			})
		}
		begun := make(chan struct{})
		if early {
			begin()
			awaitAllRead(t, clients)
			close(begun)
			start = time.Now() // the wait may have been long
		} else {
			go func() { defer close(begun); begin() }()
		}
		s.hangup(round + 2)
		if early {
			length = time.Since(start)
		}
		<-begun
		pids := make([]int, count)
		forAll(count, func(i int) {
			err := clients[i].write(halves[i].rest)
			if err == nil {
				_, pids[i], err = clients[i].answer()
			}
			if err != nil {
				failed.add(fmt.Errorf("cut %v: %w", halves[i], err))
			}
		})
		failed.report(t)
		for _, pid := range pids {
			answers++
			if pid == before {
				byPredecessor++
			}
		}
		awaitExit(t, before) // all have moved
		askAll(t, clients, s.pid())
	}
	t.Logf("%d halves, the predecessor answered %d, the successor %d", answers, byPredecessor, answers-byPredecessor)
	if byPredecessor == 0 || byPredecessor == answers {
		t.Error("want some that the predecessor had begun to read, and some that it had not")
	}
}

// sizes of headers: one is more than a server reads at once.
var sizes = []int{0, 0, 0, 0, 200, 6000}

// half is a request that is sent in two parts.
type half struct{ first, rest []byte }

func (h half) String() string {
	return fmt.Sprintf("after %d of %d bytes, %q", len(h.first), len(h.first)+len(h.rest), h.first[max(0, len(h.first)-4):])
}

// cut cuts a request, anywhere or, if the number is even, at one of the places at which a parser or a boundary is likely to go wrong:
// within the bytes that net/http waits for, within and after each line end, before the last byte.
func cut(request []byte, number int) half {
	places := []int{1, 2, 3, 4, 5}
	for i, b := range request {
		if b == '\r' {
			places = append(places, i, i+1)
		}
		if b == '\n' && i+1 < len(request) {
			places = append(places, i+1)
		}
	}
	at := 1 + rand.IntN(len(request)-1)
	if number%2 == 0 {
		at = places[number/2%len(places)]
	}
	return half{request[:at], request[at:]}
}

// awaitAllRead returns when the server has read all that the clients have sent. It is slow where many connections have ended recently.
func awaitAllRead(t *testing.T, clients []*counting) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) { // nothing tells
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			t.Fatal(err)
		}
		read := make(map[string]bool) // by the two ends, the server's first
		for entry := range strings.Lines(string(table)) {
			if f := strings.Fields(entry); len(f) > 4 && strings.HasSuffix(f[4], ":00000000") {
				read[f[1]+" "+f[2]] = true
			}
		}
		left := 0
		for _, c := range clients {
			if !read[kernelAddress(c.conn.RemoteAddr())+" "+kernelAddress(c.conn.LocalAddr())] {
				left++
			}
		}
		if left == 0 {
			return
		}
	}
	t.Fatal("the server does not read")
}

// kernelAddress is an address on 127.0.0.1 as /proc/net/tcp has it.
func kernelAddress(address net.Addr) string {
	return fmt.Sprintf("0100007F:%04X", address.(*net.TCPAddr).Port)
}
