//go:build linux || darwin || freebsd

package handoff

import (
	"context"
	"net"
	"testing"
)

// BenchmarkHandOver hands one and the same connection over again and again, from many goroutines. Both sides are in this process, so
// what it takes is the sum of both.
func BenchmarkHandOver(b *testing.B) {
	path := b.TempDir() + "/handoff"
	listener, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	backend := &Backend{Adopt: func(client *Client) (func(bool), error) {
		return func(bool) { _ = client.Conn.Close() }, nil
	}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = backend.ServeConn(context.Background(), conn) }()
		}
	}()
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer web.Close()
	conn, err := net.Dial("tcp", web.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	pool := &Pool{Path: path}
	defer pool.Close()
	b.SetParallelism(16)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := pool.HandOver(&Client{Conn: conn}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
