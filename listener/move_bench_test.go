//go:build linux

package listener

import (
	"testing"
)

// BenchmarkMove is what it costs to take a connection out of one server and to put it into another, without what is between two
// processes. One operation is one connection.
func BenchmarkMove(b *testing.B) {
	const clients = 500
	first, second := twoServers(b, nil)
	for range clients {
		c := dialServer(b, first)
		c.write("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
		c.expect(1, "")
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); {
		if n++; n%clients == 0 {
			first.moveTo(b, second)
			first, second = second, first
		}
	}
}
