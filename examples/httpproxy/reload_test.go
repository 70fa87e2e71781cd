//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/chain"
)

// named is an upstream that answers its name, and to /hold only when it is let go.
type named struct {
	*httptest.Server
	held chan struct{} // something arrived at /hold
	free chan struct{}
}

func newNamed(t *testing.T, name string) *named {
	n := &named{held: make(chan struct{}, 100), free: make(chan struct{})}
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			n.held <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body)
			<-n.free
		}
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(n.Close)
	return n
}

// keepAlive is a client with one connection, which it does not replace.
type keepAlive struct {
	t      *testing.T
	conn   net.Conn
	reader *bufio.Reader
}

func newKeepAlive(t *testing.T, address string) *keepAlive {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, chain.Within)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(3 * chain.Within))
	return &keepAlive{t, conn, bufio.NewReader(conn)}
}

func (k *keepAlive) say(text string) {
	k.t.Helper()
	if _, err := io.WriteString(k.conn, text); err != nil {
		k.t.Error(err)
	}
}

func (k *keepAlive) get(path string) {
	k.t.Helper()
	k.say("GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n")
}

// answer is that to the next request.
func (k *keepAlive) answer() string {
	k.t.Helper()
	response, err := http.ReadResponse(k.reader, nil)
	if err != nil {
		k.t.Error(err)
		return ""
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || response.Close {
		k.t.Errorf("%s, closes %v, %v: %s", response.Status, response.Close, err, body)
	}
	return string(body)
}

// A configuration that is broken is refused, with its line, and nothing happens.
func TestBrokenConfigurationIsRefused(t *testing.T) {
	a := newNamed(t, "a")
	file := newConfigFile(t, "route / "+a.URL)
	c := start(t, "-config", file.path)
	c.Tolerate(`msg="upgrade failed"`)
	pid, err := c.PID()
	if err != nil {
		t.Fatal(err)
	}
	client := newKeepAlive(t, c.Addr)
	file.write("route / " + a.URL + "\nroute /b ftp://127.0.0.1\n")
	mark := c.Mark()
	c.Signal(syscall.SIGHUP)
	have := c.Await(mark, `msg="upgrade failed" .*error="(.*)" preparing`)
	if want := file.path + `:2: upstream \"ftp://127.0.0.1\": want an http:// URL`; !strings.Contains(have, want) {
		t.Errorf("want %s, have %s", want, have)
	}
	client.get("/")
	if have := client.answer(); have != "a" {
		t.Errorf("want a, have %s", have)
	}
	if have, err := c.PID(); have != pid {
		t.Errorf("want generation 1 to serve, have %d instead of %d, %v", have, pid, err)
	}
	for _, line := range c.Lines(mark) {
		if strings.Contains(line, "generation=2") {
			t.Errorf("something happened: %s", line)
		}
	}
}

// Every request that starts after the commit is answered as the new configuration says: on new connections, on those that were idle or in
// the middle of a request at the commit, and right behind another request.
func TestConfigurationIsInForceFromTheCommitOn(t *testing.T) {
	a, b := newNamed(t, "a"), newNamed(t, "b")
	close(b.free)
	file := newConfigFile(t, "route / "+a.URL)
	c := start(t, "-config", file.path)
	var committed, stop atomic.Bool
	var work sync.WaitGroup
	var after atomic.Int64
	check := func(client *keepAlive) {
		began := committed.Load()
		client.get("/")
		if have := client.answer(); began && have != "b" {
			t.Errorf("a request after the commit: want b, have %q", have)
		}
		if began {
			after.Add(1)
		}
	}
	for range 10 {
		work.Go(func() { // one connection
			for client := newKeepAlive(t, c.Addr); !stop.Load() && !t.Failed(); {
				check(client)
			}
		})
	}
	work.Go(func() { // always another one
		for !stop.Load() && !t.Failed() {
			client := newKeepAlive(t, c.Addr)
			check(client)
			client.conn.Close()
		}
	})
	busy := make([]*keepAlive, 10)
	for i := range busy {
		busy[i] = newKeepAlive(t, c.Addr)
		if i%2 == 0 {
			busy[i].get("/hold")
		} else { // what follows the body may be read with it
			busy[i].say("POST /hold HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n01234")
		}
		<-a.held
	}
	idle := newKeepAlive(t, c.Addr)
	file.routeAllTo(b.URL)
	mark := c.Mark()
	c.Signal(syscall.SIGHUP)
	c.Await(mark, `msg=(serving) .*generation=2`)
	committed.Store(true)
	for i, client := range busy {
		if i%2 == 1 {
			client.say("56789")
		}
		client.get("/") // behind the one that is under way
	}
	close(a.free)
	for i, client := range busy {
		for request, want := range []string{"a", "b", "b"} {
			if have := client.answer(); have != want {
				t.Errorf("connection %d, request %d: want %s, have %q", i, request+1, want, have)
			}
			if request == 1 {
				client.get("/")
			}
		}
	}
	check(idle)
	c.Await(mark, `msg=(done) .*generation=1 `)
	for deadline := time.Now().Add(chain.Within); after.Load() < 100 && !t.Failed(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("hardly a request after the commit")
		}
	}
	stop.Store(true)
	work.Wait()
}

// What the successor would not read any more is refused, too.
func TestConfigurationThatIsGoneIsRefused(t *testing.T) {
	a := newNamed(t, "a")
	file := newConfigFile(t, "route / "+a.URL)
	c := start(t, "-config", file.path)
	c.Tolerate(`msg="upgrade failed"`)
	for generation, text := range []string{"", "#" + strings.Repeat("x", maxConfigLine)} {
		file.write(text)
		mark := c.Mark()
		c.Signal(syscall.SIGHUP)
		c.Await(mark, `msg="upgrade failed" .*error="(.*)" preparing`)
		client := newKeepAlive(t, c.Addr)
		client.get(fmt.Sprint("/", generation))
		if have := client.answer(); have != "a" {
			t.Errorf("want a, have %s", have)
		}
	}
}
