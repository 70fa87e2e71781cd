//go:build linux || darwin || freebsd

package restart

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/segue-go/segue/listener"
)

// frame makes a frame of HTTP/2 (RFC 9113, section 4.1) on the connection itself.
func frame(kind, flags byte, payload []byte) []byte {
	header := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	return append(append(header, flags, 0, 0, 0, 0), payload...)
}

// A connection of HTTP/2 without TLS is never between two requests as HTTP/1 knows them, whatever its server says of it and however
// much it reads at once.
func TestInvariant5UnencryptedHTTP2DoesNotMove(t *testing.T) {
	var set listener.Set
	t.Cleanup(func() { set.Close() })
	ln, err := set.Listen(t.Context(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	server := newHTTPServer(srv)
	go server.serve(ln)
	t.Cleanup(func() { server.Close() })

	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	const settings, ping, unknown, ack = 4, 6, 0xfa, 1
	send := func(bytes []byte) {
		t.Helper()
		if _, err := conn.Write(bytes); err != nil {
			t.Fatal(err)
		}
	}
	awaitPong := func() {
		t.Helper()
		for header := make([]byte, 9); ; {
			if _, err := io.ReadFull(conn, header); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(header)>>8)); err != nil {
				t.Fatal(err)
			}
			if header[3] == ping && header[4] == ack {
				return
			}
		}
	}
	send(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(settings, 0, nil)...))
	send(append(frame(settings, ack, nil), frame(ping, 0, make([]byte, 8))...))
	awaitPong()
	large := frame(unknown, 0, make([]byte, 4096)) // what net/http's buffer for HTTP/1 has room for
	send(append(frame(ping, 0, make([]byte, 8)), large[:9]...))
	awaitPong()

	moved := make(chan *listener.Detached, 1)
	for range 20 { // it reads the frame's header, and waits for the rest
		ln.Detach(1, func(d *listener.Detached, _ bool) {
			if d != nil {
				moved <- d
			}
		})
		select {
		case d := <-moved:
			_ = d.Close()
			t.Fatal("the connection was taken out in the middle of a frame")
		case <-time.After(5 * time.Millisecond):
		}
	}
	send(large[9:])
	send(frame(ping, 0, make([]byte, 8)))
	awaitPong()
}
