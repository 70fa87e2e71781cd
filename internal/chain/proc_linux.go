package chain

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Clients lists the ports of this machine that have a connection to address: who reconnects has another one.
func Clients(t testing.TB, address string) []string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("/proc/net/tcp") // see proc_net_tcp(5): addresses and state are hexadecimal
	if err != nil {
		t.Fatal(err)
	}
	var ports []string
	for line := range strings.Lines(string(table)) {
		const local, remote, state, established = 1, 2, 3, "01"
		fields := strings.Fields(line)
		if len(fields) > state && fields[state] == established && strings.HasSuffix(fields[remote], fmt.Sprintf(":%04X", number)) {
			ports = append(ports, fields[local])
		}
	}
	slices.Sort(ports)
	return ports
}

// AwaitClients waits until there are n connections to address at least, and returns Clients.
func AwaitClients(t testing.TB, address string, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(Within); ; time.Sleep(10 * time.Millisecond) {
		clients := Clients(t, address)
		if len(clients) >= n {
			return clients
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections, want %d", len(clients), n)
		}
	}
}

// Descriptors counts what the generation that serves has open, by what it is ("socket", "pipe", "anon_inode").
func (c *Chain) Descriptors() map[string]int {
	c.t.Helper()
	pid, err := c.PID()
	if err != nil {
		c.t.Fatal(err)
	}
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		c.t.Fatal(err)
	}
	count := make(map[string]int)
	for _, entry := range entries {
		if target, err := os.Readlink(dir + entry.Name()); err == nil {
			kind, _, _ := strings.Cut(target, ":")
			count[kind]++
		}
	}
	return count
}
