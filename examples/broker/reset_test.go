//go:build linux

package broker

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// A client that is served by reconnect does not take a part of an answer for the whole.
func TestResetsArePassedOn(t *testing.T) {
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	front := start(t, "front", "-listen", "127.0.0.1:0", "-reconnect", upstream.Addr().String())
	client, err := net.Dial("tcp", front.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(patience))
	server, err := upstream.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(server, "half"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	_ = server.(*net.TCPConn).SetLinger(0)
	_ = server.Close()
	if n, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("want ECONNRESET, have %d bytes, %v", n, err)
	}
}
