//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/chain"
)

// startEcho builds examples/httpserver, whose /ws echoes, and returns its address.
func startEcho(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "httpserver")
	if out, err := exec.Command("go", "build", "-o", binary, "../httpserver").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	address := "127.0.0.1:" + chain.FreePort(t)
	chain.Daemon(t, exec.Command(binary, "-addr", address, "-drain", "0"), chain.Accepts(address), syscall.SIGTERM)
	return address
}

// webSocket is a client of /ws (RFC 6455), with one connection.
type webSocket struct {
	conn   net.Conn
	reader *bufio.Reader
}

func dialWebSocket(address, path, said string) (*webSocket, error) {
	conn, err := net.DialTimeout("tcp", address, chain.Within)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(3 * chain.Within))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n%s", path, said); err != nil {
		return nil, err
	}
	w := &webSocket{conn, bufio.NewReader(conn)}
	response, err := http.ReadResponse(w.reader, nil)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		return nil, fmt.Errorf("want 101 and the answer to the key of RFC 6455, section 1.3; have %s, %v", response.Status, response.Header)
	}
	return w, nil
}

// frame is a masked binary message of less than 64 KiB.
func frame(payload []byte) []byte {
	key := [4]byte{7, 77, 177, 17}
	out := append(binary.BigEndian.AppendUint16([]byte{0x82, 0x80 | 126}, uint16(len(payload))), key[:]...)
	for i, b := range payload {
		out = append(out, b^key[i%4])
	}
	return out
}

// receive reads what comes back of a frame.
func (w *webSocket) receive() ([]byte, error) {
	header := make([]byte, 4)
	if _, err := io.ReadFull(w.reader, header); err != nil {
		return nil, err
	}
	if header[0] != 0x82 || header[1] != 126 {
		return nil, fmt.Errorf("want a binary message with a length of two bytes, have a frame that begins with %x", header)
	}
	payload := make([]byte, binary.BigEndian.Uint16(header[2:]))
	_, err := io.ReadFull(w.reader, payload)
	return payload, err
}

// message is the text of a number, and more of it than fits into one segment.
func message(client, number int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "client %d message %d\n", client, number), 1+number%100)
}

// 100 WebSockets echo through 20 upgrades: nobody reconnects, and every message comes once and in its place.
func TestInvariant5WebSocketsMoveThroughTheProxy(t *testing.T) {
	c := start(t, "-upstream", "http://"+startEcho(t))
	const clients = 100
	var stop atomic.Bool
	var echoed [clients]atomic.Int64
	var work sync.WaitGroup
	sockets := make([]*webSocket, clients)
	for i := range sockets {
		var err error
		// The first message comes in the same segment as the request.
		if sockets[i], err = dialWebSocket(c.Addr, "/ws", string(frame(message(i, 0)))); err != nil {
			t.Fatal(err)
		}
		defer sockets[i].conn.Close()
	}
	before := chain.Clients(t, c.Addr)
	for i, w := range sockets {
		sent := make(chan int, 4) // as many are under way at most
		sent <- 0
		work.Go(func() {
			defer close(sent)
			for number := 1; !stop.Load(); number++ {
				if _, err := w.conn.Write(frame(message(i, number))); err != nil {
					t.Errorf("client %d, message %d: %v", i, number, err)
					return
				}
				sent <- number
			}
		})
		work.Go(func() {
			for number := range sent {
				have, err := w.receive()
				if err != nil || !bytes.Equal(have, message(i, number)) {
					t.Errorf("client %d: want message %d, have %.40q, %v", i, number, have, err)
					w.conn.Close()
					for range sent {
					}
					return
				}
				echoed[i].Add(1)
			}
		})
	}
	progress := func() {
		t.Helper()
		var had [clients]int64
		for i := range echoed {
			had[i] = echoed[i].Load()
		}
		late := time.Now().Add(chain.Within)
		for i := range echoed {
			for ; echoed[i].Load() == had[i]; time.Sleep(time.Millisecond) {
				if time.Now().After(late) || t.Failed() {
					t.Fatalf("client %d: no echo after %d", i, had[i])
				}
			}
		}
	}
	for generation := 2; generation <= upgrades+1; generation++ {
		progress()
		mark := c.Mark()
		c.Upgrade(generation)
		c.Await(mark, fmt.Sprintf(`msg="connections moved" .*(moved=%d) `, 2*clients))
	}
	progress()
	if after := chain.Clients(t, c.Addr); strings.Join(before, " ") != strings.Join(after, " ") {
		t.Errorf("reconnects: connections from %v at the beginning, from %v at the end", before, after)
	}
	stop.Store(true)
	work.Wait()
	total := int64(0)
	for i := range echoed {
		total += echoed[i].Load()
	}
	t.Logf("%d upgrades, %d messages", upgrades, total)
}

// An upstream that does not want to switch is heard like any other, and one that says too much is not.
func TestRequestsToSwitchThatAreNotGranted(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/refused":
			w.WriteHeader(http.StatusUpgradeRequired)
			_, _ = io.WriteString(w, "not here, "+r.Header.Get("X-Forwarded-For"))
		case "/endless":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n"+strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 2000))
			_ = conn.Close()
		case "/other":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
			_ = conn.Close()
		}
	}))
	t.Cleanup(upstream.Close)
	c := start(t, "-upstream", upstream.URL)
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/refused": {http.StatusUpgradeRequired, "not here, 127.0.0.1"},
		"/endless": {http.StatusBadGateway, "Bad Gateway\n"},
		"/other":   {http.StatusBadGateway, "Bad Gateway\n"},
	} {
		client := newKeepAlive(t, c.Addr)
		for range 2 { // on the same connection
			client.say("GET " + path + " HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			response, err := http.ReadResponse(client.reader, nil)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != want.status || string(body) != want.body {
				t.Errorf("%s: want %v, have %s %q, %v", path, want, response.Status, body, err)
			}
		}
	}
}
