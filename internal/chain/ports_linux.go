package chain

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
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
