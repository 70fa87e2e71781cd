//go:build linux

package main

import (
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/segue-go/segue/internal/chain"
)

// through starts the proxy in front of a port of this machine, and upgrades it while load runs, each time when that has so many connections.
func through(t *testing.T, port string, connections int, load func(proxyPort string) *chain.Load) []string {
	t.Helper()
	// Who connects on probation has the successor's connection. Those that are there before are to be there after it, too.
	c := chain.Start(t, nil, "-listen", "127.0.0.1:0", "-upstream", net.JoinHostPort("127.0.0.1", port),
		"-probation", "20ms", "-drain", chain.Within.String())
	_, proxyPort, err := net.SplitHostPort(c.Addr)
	if err != nil {
		t.Fatal(err)
	}
	l := load(proxyPort)
	for generation := 2; generation <= upgrades+1; generation++ {
		chain.AwaitClients(t, c.Addr, connections)
		c.Upgrade(generation)
	}
	outputs := l.End()
	moved := 0
	for _, line := range c.Lines(0) {
		if found := movedField.FindStringSubmatch(line); found != nil {
			n, _ := strconv.Atoi(found[1])
			moved += n
		}
	}
	t.Logf("%d upgrades, %d runs, %d connections moved", upgrades, len(outputs), moved)
	if moved == 0 {
		t.Error("no connection moved")
	}
	return outputs
}

var movedField = regexp.MustCompile(`msg="connections moved" .*moved=(\d+) `)

// redis-benchmark, against a real Redis, reports no error.
func TestRedisBenchmarkNoticesNothing(t *testing.T) {
	server := chain.Find(t, "redis-server", "redis-server")
	benchmark := chain.Find(t, "redis-benchmark", "redis-tools")
	port := chain.FreePort(t)
	chain.Daemon(t, exec.Command(server, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()),
		chain.Accepts("127.0.0.1:"+port), syscall.SIGTERM)
	outputs := through(t, port, 50, func(proxyPort string) *chain.Load {
		return chain.Run(t, nil, benchmark, "-h", "127.0.0.1", "-p", proxyPort, "-c", "50", "-n", strconv.Itoa(100_000/slowdown),
			"-t", "set,get,lpush", "-d", "1000", "-q")
	})
	results := regexp.MustCompile(`(?m)^(SET|GET|LPUSH): [0-9.]+ requests per second`)
	for _, output := range outputs {
		output = strings.ReplaceAll(output, "\r", "\n")
		if have := len(results.FindAllString(output, -1)); have != 3 || strings.Contains(strings.ToLower(output), "error") {
			t.Errorf("%d results, want 3, and no error: %s", have, output)
		}
	}
}

// pgbench, against a real PostgreSQL, reports no failed transaction, and no client that was aborted.
func TestPgbenchNoticesNothing(t *testing.T) {
	const binaries = "/usr/lib/postgresql/*/bin/"
	initdb := chain.Find(t, "initdb", "postgresql", binaries+"initdb")
	postgres := chain.Find(t, "postgres", "postgresql", binaries+"postgres")
	pgbench := chain.Find(t, "pgbench", "postgresql-contrib", binaries+"pgbench")
	isReady := chain.Find(t, "pg_isready", "postgresql-client", binaries+"pg_isready")
	dir := filepath.Join(t.TempDir(), "data")
	as := notRoot(t, dir)
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.SysProcAttr, cmd.Dir = as, filepath.Dir(dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	run(initdb, "-D", dir, "-U", "segue", "-A", "trust", "--no-sync")
	port := chain.FreePort(t)
	server := exec.Command(postgres, "-D", dir, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
	server.SysProcAttr, server.Dir = as, filepath.Dir(dir)
	chain.Daemon(t, server, func() error { // it listens before it is ready
		return exec.Command(isReady, "-h", "127.0.0.1", "-p", port, "-q").Run()
	}, syscall.SIGINT) // fast shutdown
	run(pgbench, "-h", "127.0.0.1", "-p", port, "-U", "segue", "-i", "-q", "postgres")
	outputs := through(t, port, 20, func(proxyPort string) *chain.Load {
		return chain.Run(t, nil, pgbench, "-h", "127.0.0.1", "-p", proxyPort, "-U", "segue", "-c", "20", "-j", "2", "-T", "5", "postgres")
	})
	for _, output := range outputs {
		if !strings.Contains(output, "number of failed transactions: 0 (0.000%)") || strings.Contains(output, "abort") {
			t.Error(output)
		}
	}
}

// notRoot makes a directory whose owner PostgreSQL may run as, which root may not.
func notRoot(t *testing.T, dir string) *syscall.SysProcAttr {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		return nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		t.Skip("PostgreSQL does not run as root, and there is no user postgres: ", err)
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(account.Gid)
	if err != nil {
		t.Fatal(err)
	}
	for path := dir; path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o711); err != nil { // t.TempDir's are root's alone
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}
