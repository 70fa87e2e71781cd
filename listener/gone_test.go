//go:build linux || darwin || freebsd

package listener

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// The kernel does not tell the address of a peer that has cut the connection. Whoever logs it does not expect nothing at all.
func TestAdoptedConnectionsOfPeersThatHaveGoneHaveAnAddress(t *testing.T) {
	var strays Strays
	ln := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer ln.Close()
	client := must(net.Dial("tcp", ln.Addr().String()))(t).(*net.TCPConn)
	c := must(strays.Add(must(ln.Accept())(t)))(t)
	_ = client.SetLinger(0)
	_ = client.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("want ECONNRESET, have %v", err)
	}
	c = must(strays.AdoptConn(must(DetachConns(c))(t)[0]))(t)
	defer c.Close()
	if network, text := c.RemoteAddr().Network(), c.RemoteAddr().String(); network != "tcp" || text == "" {
		t.Errorf("want an address of tcp, have %q of %q", text, network)
	}
}
