//go:build linux || darwin || freebsd

package restart

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
)

// takeHandoffs has a generation serve what is handed over at path.
func takeHandoffs(t *testing.T, g *Generation, path string, config *tls.Config) {
	t.Helper()
	web, err := g.Listen(t.Context(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := g.Listen(t.Context(), "handoff", "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	number := g.Number()
	g.HTTP(web, &http.Server{TLSConfig: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, number)
	})})
	g.Handoffs(socket, web, &handoff.Backend{Service: "web"})
}

// front is a listener whose connections are handed over by pool.
func front(t *testing.T, pool *handoff.Pool) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			pool.Offer(&handoff.Client{Conn: conn, Service: "web"}, func(err error) {
				if err != nil {
					t.Errorf("hand over: %v", err)
				}
				conn.Close()
			})
		}
	}()
	return ln.Addr().String()
}

func askOnce(url string) (string, error) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

// Connections are handed over without a pause while generation follows generation, and each is answered.
func TestInvariant3HandoffsGoOnThroughGenerations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "handoff")
	g := newTwin(t)
	takeHandoffs(t, g, path, nil)
	current := runFirst(t, g)
	pool := &handoff.Pool{Path: path, Wait: time.Minute, Waiting: 1000}
	defer pool.Close()
	address := front(t, pool)
	var answers [4]atomic.Int64 // by generation
	var over atomic.Bool
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for !over.Load() {
				have, err := askOnce("http://" + address)
				if err != nil || len(have) != 1 || have < "1" || have > "3" {
					t.Errorf("want a generation, have %q, %v", have, err)
					return
				}
				answers[have[0]-'0'].Add(1)
			}
		})
	}
	await := func(generation int) {
		for late := time.Now().Add(30 * time.Second); answers[generation].Load() < 20 && time.Now().Before(late) && !t.Failed(); {
			time.Sleep(time.Millisecond) // there is no event
		}
	}
	for generation := 1; generation <= 3; generation++ {
		await(generation)
		if generation < 3 {
			next := current.upgrade(t, func(next *Generation) { takeHandoffs(t, next, path, nil) })
			current.leave()
			current = next
		}
	}
	over.Store(true)
	clients.Wait()
	for generation := 1; generation <= 3; generation++ {
		if answers[generation].Load() < 20 {
			t.Errorf("%d answers of generation %d, want 20 at least", answers[generation].Load(), generation)
		}
	}
}

// The key is in the backend, and so is what it decrypts.
func TestHandoffsOverTLS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "handoff")
	certified := httptest.NewTLSServer(nil)
	config := &tls.Config{Certificates: certified.TLS.Certificates}
	certified.Close()
	g := newTwin(t)
	takeHandoffs(t, g, path, config)
	runFirst(t, g)
	pool := &handoff.Pool{Path: path, Wait: time.Minute}
	defer pool.Close()
	if have, err := askOnce("https://" + front(t, pool)); err != nil || have != "1" {
		t.Errorf("want 1, have %q, %v", have, err)
	}
}

// Once a listener is drained nothing comes in any more.
func TestNothingIsTakenInByAGenerationThatLeaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "handoff")
	g := newTwin(t)
	takeHandoffs(t, g, path, nil)
	first := runFirst(t, g)
	first.leave()
	own, conn := net.Pipe()
	defer own.Close()
	defer conn.Close()
	_, err := g.intake.take(nil, &handoff.Client{Conn: conn})
	var refused *handoff.RefusedError
	if !errors.As(err, &refused) || refused.Reason != handoff.ReasonStopped {
		t.Errorf("want a refusal for %q, have %v", handoff.ReasonStopped, err)
	}
}

// In the bare form a broker was told that it has sent what a generation has not yet read when it begins to leave, and nobody else has it.
func TestInvariant3BareHandoffsThatWereSentAreServedByAGenerationThatLeaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "handoff")
	token, err := handoff.ParseToken([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	g := newTwin(t)
	web, err := g.Listen(t.Context(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := g.Listen(t.Context(), "handoff", "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g.HTTP(web, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "served") })})
	reading, leaving := make(chan struct{}, 10), make(chan struct{})
	g.Handoffs(socket, web, &handoff.Backend{Bare: func(presented []byte) error {
		reading <- struct{}{}
		<-leaving
		return token.Verify(presented)
	}})
	first := runFirst(t, g)
	release := sync.OnceFunc(func() { close(leaving) })
	t.Cleanup(release) // before first.leave

	kept, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	var clients []net.Conn
	for i := range 6 {
		client, err := net.Dial("tcp", elsewhere.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		accepted, err := elsewhere.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			err = handoff.SendBare(kept.(*net.UnixConn), token, accepted.(*net.TCPConn))
		} else {
			err = handoff.DialBare(t.Context(), path, token, accepted.(*net.TCPConn))
		}
		accepted.Close()
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
	}
	for range 4 { // the first of the one socket, and each of the others
		select {
		case <-reading:
		case <-time.After(30 * time.Second):
			t.Fatal("not read")
		}
	}
	go first.leave()
	<-g.Leaving()
	release()
	for i, client := range clients {
		_ = client.SetReadDeadline(time.Now().Add(30 * time.Second))
		answer, err := io.ReadAll(client)
		if err != nil || !strings.HasSuffix(string(answer), "\r\n\r\nserved") {
			t.Errorf("client %d: want it served, have %q, %v", i+1, answer, err)
		}
	}
}
