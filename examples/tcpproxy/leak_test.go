//go:build linux

package main

import (
	"net"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/chain"
)

// What pairs have needed is gone with them, however often they have moved.
func TestInvariant8NothingIsLeftOfPairs(t *testing.T) {
	c := chain.Start(t, nil, "-listen", "127.0.0.1:0", "-upstream", listen(t, "a"), "-probation", "0")
	before := c.Descriptors()
	await := func(what string, fits func(have map[string]int) bool) {
		t.Helper()
		for late := time.Now().Add(chain.Within); ; time.Sleep(time.Millisecond) {
			have := c.Descriptors()
			if fits(have) {
				return
			}
			if time.Now().After(late) {
				t.Fatalf("%s: have %v, at the beginning %v", what, have, before)
			}
		}
	}
	var clients []net.Conn
	for range 50 {
		conn, _, err := hear(t, c.Addr)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, conn)
	}
	for generation := 2; generation <= 6; generation++ {
		c.Upgrade(generation)
		for _, conn := range clients { // the echo comes from the upstream
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		await("two sockets for each pair", func(have map[string]int) bool { return have["socket"] == before["socket"]+2*len(clients) })
	}
	for _, conn := range clients {
		_ = conn.Close()
	}
	const keptPipes = 2 * 16 // see listener's maxFreePipes
	await("nothing but some pipes for the next", func(have map[string]int) bool {
		return have["socket"] == before["socket"] && have["pipe"] <= before["pipe"]+keptPipes && have["anon_inode"] <= before["anon_inode"]
	})
}
