//go:build linux

package e2e

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a client may be in the middle of when its server is replaced. What has begun is answered by the generation that has begun to
// read it, and the connection moves after it; the others move at once. No connection ends.
func TestInvariant3ClientsFinishWhatTheyBegan(t *testing.T) {
	const first, second = 0, 1
	for _, test := range []struct {
		name  string
		begin func(c *keptConn) // before the upgrade
		end   func(c *keptConn) // after it: the rest of a request
		by    int               // who answers it
	}{
		{"has said nothing yet", func(*keptConn) {}, func(c *keptConn) { c.write("GET / HTTP/1.1\r\nHost: test\r\n\r\n") }, second},
		{"is idle between requests", func(c *keptConn) { c.ask(0) }, func(c *keptConn) { c.write("GET / HTTP/1.1\r\nHost: test\r\n\r\n") }, second},
		{"wrote a byte of its second request", func(c *keptConn) { c.ask(0); c.write("G") }, func(c *keptConn) { c.write("ET / HTTP/1.1\r\nHost: test\r\n\r\n") }, second},
		{"wrote half a request line", func(c *keptConn) { c.write("GET / HT") }, func(c *keptConn) { c.write("TP/1.1\r\nHost: test\r\n\r\n") }, first},
		{"wrote half a header", func(c *keptConn) { c.write("GET / HTTP/1.1\r\nHo") }, func(c *keptConn) { c.write("st: test\r\n\r\n") }, first},
		{"wrote half a header of its second request",
			func(c *keptConn) { c.ask(0); c.write("GET / HTTP/1.1\r\nHo") }, func(c *keptConn) { c.write("st: test\r\n\r\n") }, first},
		{"wrote half a body", func(c *keptConn) { c.write("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nab") },
			func(c *keptConn) { c.write("cd") }, first},
	} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(test.name+" over "+network, func(t *testing.T) {
				t.Parallel()
				s := startService(t, config{Probation: -1, Drain: patience, Unix: true})
				pids := []int{s.pid()}
				address := s.address
				if network == "unix" {
					address = s.config.unixSocket()
				}
				c := dialKeptOver(t, network, address)
				test.begin(c)
				if network == "tcp" {
					for !s.hasRead(c.conn) {
						time.Sleep(time.Millisecond) // nothing tells when a peer has read
					}
				} else {
					for unread(t, c.conn) > 0 {
						time.Sleep(time.Millisecond)
					}
				}
				s.hangup(2)
				pids = append(pids, s.pid())
				if test.by == second {
					awaitExit(t, pids[first]) // nothing keeps it
				}
				test.end(c)
				c.answer(pids[test.by])
				awaitExit(t, pids[first])
				c.ask(pids[second])
				s.hangup(3)
				awaitExit(t, pids[second])
				c.ask(s.pid())
				if c.closed {
					t.Error("the end of the connection was announced")
				}
			})
		}
	}
}

// unread is how much of what was sent over a Unix connection its peer has not read (SIOCOUTQ, unix(7)).
func unread(t *testing.T, conn net.Conn) (bytes int) {
	t.Helper()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { bytes, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func (c *keptConn) write(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

func TestDrainEndsAtItsDeadlineAndCounts(t *testing.T) {
	s := startService(t, config{Probation: -1, Drain: 300 * time.Millisecond})
	first := s.pid()
	for range 3 { // busy, and so they cannot move
		c := dialKept(t, s.address)
		c.write("GET / HTTP/1.1\r\nHo")
		for !s.hasRead(c.conn) {
			time.Sleep(time.Millisecond)
		}
	}
	s.hangup(2)
	awaitExit(t, first)
	cut := s.await("end of the drain", func(l line) bool { return l.PID == first && l.Cut > 0 })
	if want, have := 3, cut.Cut; want != have {
		t.Errorf("cut: want %d, have %d", want, have)
	}
}

func TestHTTP2ClientsGetGoAwayAtOnceAndFinish(t *testing.T) {
	dir := t.TempDir()
	s := startService(t, config{Dir: dir, Probation: -1, Drain: patience, Certificate: makeCertificate(t, dir)})
	address := s.await("secure listener", func(l line) bool { return l.Message == "secure" }).Address
	first := s.pid()

	// One client that only listens, by hand: nothing but GOAWAY may come, and it must come while the predecessor drains.
	silent := dialHTTP2(t, address)
	// One ordinary client, with a request under way.
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	get := func(path string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+path, nil)
		if err != nil {
			return "", err
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		if response.ProtoMajor != 2 {
			return "", fmt.Errorf("want HTTP/2, have %s", response.Proto)
		}
		body, err := io.ReadAll(response.Body)
		return string(body), err
	}
	if _, err := get("/"); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		body string
		err  error
	}
	slow := make(chan answer, 1)
	go func() {
		body, err := get("/slow?d=1500ms")
		slow <- answer{body, err}
	}()
	s.awaitRequest(transport, address)
	s.hangup(2)

	if code := silent.awaitGoAway(); code != 0 {
		t.Errorf("GOAWAY: want NO_ERROR, have %d", code)
	}
	select {
	case <-slow:
		t.Error("GOAWAY came only after the request under way had ended")
	default:
	}
	body, err := get("/")
	if err != nil || !strings.Contains(body, "generation 2 ") {
		t.Errorf("new request of the same client: want generation 2, have %q, %v", body, err)
	}
	if end := <-slow; end.err != nil || !strings.Contains(end.body, fmt.Sprintf("pid %d\n", first)) {
		t.Errorf("request under way: want an answer of pid %d, have %q, %v", first, end.body, end.err)
	}
	silent.conn.Close()
	awaitExit(t, first)
}

// awaitRequest waits until the slow request is in the server: a PING on its connection would tell, a later request on the
// same connection that was answered tells as well, because one connection's frames are read in order.
func (s *service) awaitRequest(transport *http.Transport, address string) {
	s.t.Helper()
	for range 3 {
		response, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + address + "/")
		if err != nil {
			s.t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}

// http2Conn is a client that only reads frames (RFC 9113, section 4.1).
type http2Conn struct {
	t      *testing.T
	conn   net.Conn
	reader *bufio.Reader
}

const (
	frameSettings = 4
	frameGoAway   = 7
)

func dialHTTP2(t *testing.T, address string) *http2Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &http2Conn{t: t, conn: conn, reader: bufio.NewReader(conn)}
	emptySettings := []byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0}
	if _, err := conn.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), emptySettings...)); err != nil {
		t.Fatal(err)
	}
	acknowledged := func(kind, flags byte, _ []byte) bool { return kind == frameSettings && flags == 1 }
	c.await("acknowledgement of our settings", acknowledged)
	return c
}

func (c *http2Conn) await(what string, fits func(kind, flags byte, payload []byte) bool) []byte {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		var header [9]byte
		if _, err := io.ReadFull(c.reader, header[:]); err != nil {
			c.t.Fatalf("%s: %v", what, err)
		}
		payload := make([]byte, int(header[0])<<16|int(header[1])<<8|int(header[2]))
		if _, err := io.ReadFull(c.reader, payload); err != nil {
			c.t.Fatalf("%s: %v", what, err)
		}
		if fits(header[3], header[4], payload) {
			return payload
		}
	}
}

func (c *http2Conn) awaitGoAway() (code uint32) {
	c.t.Helper()
	payload := c.await("GOAWAY", func(kind, _ byte, _ []byte) bool { return kind == frameGoAway })
	return binary.BigEndian.Uint32(payload[4:8])
}

func makeCertificate(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	content := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	path := filepath.Join(dir, "certificate.pem")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
