//go:build unix

package listener

import (
	"context"
	"net"
	"testing"
)

// BenchmarkAccept is one connection from connect to close, with a net.Listener and with a Listener.
func BenchmarkAccept(b *testing.B) {
	run := func(b *testing.B, l net.Listener) {
		b.ReportAllocs()
		for b.Loop() {
			client, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			server, err := l.Accept()
			if err != nil {
				b.Fatal(err)
			}
			server.Close()
			client.Close()
		}
	}
	b.Run("net", func(b *testing.B) {
		l := must(net.Listen("unix", tempPath(b, "s")))(b)
		defer l.Close()
		run(b, l)
	})
	b.Run("segue", func(b *testing.B) {
		s, _ := newSet(b)
		run(b, must(s.Listen(context.Background(), "web", "unix", tempPath(b, "s")))(b))
	})
}

// BenchmarkEcho is a write and a read on each side.
func BenchmarkEcho(b *testing.B) {
	run := func(b *testing.B, client, server net.Conn) {
		b.ReportAllocs()
		buf := make([]byte, 64)
		for b.Loop() {
			client.Write(buf)
			server.Read(buf)
			server.Write(buf)
			client.Read(buf)
		}
	}
	client, server := pair(b, place{"tcp", "127.0.0.1:0"})
	b.Run("net", func(b *testing.B) { run(b, client, server.NetConn()) })
	b.Run("segue", func(b *testing.B) { run(b, client, server) })
}

// BenchmarkPacket is a datagram sent and read.
func BenchmarkPacket(b *testing.B) {
	s, _ := newSet(b)
	p := must(s.ListenPacket(context.Background(), "dns", "udp", "127.0.0.1:0"))(b)
	buf := make([]byte, 64)
	addr := p.LocalAddr().(*net.UDPAddr).AddrPort()
	b.Run("net", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.udp.WriteToUDPAddrPort(buf, addr)
			p.udp.ReadFromUDPAddrPort(buf)
		}
	})
	b.Run("segue", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.WriteToUDPAddrPort(buf, addr)
			p.ReadFromUDPAddrPort(buf)
		}
	})
}
