//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/segue-go/segue/internal/chain"
)

const nginxConfig = `daemon off;
user root;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 2000; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	keepalive_requests 100000000;
	server {
		listen 127.0.0.1:%[2]s;
		root %[1]s;
	}
}
`

// startNginx returns the URL of a real nginx, which serves a file.
func startNginx(t *testing.T) string {
	t.Helper()
	nginx := chain.Find(t, "nginx", "nginx", "/usr/sbin/nginx")
	dir := t.TempDir()
	port := chain.FreePort(t)
	for name, text := range map[string]string{
		"nginx.conf": fmt.Sprintf(nginxConfig, dir, port),
		"index.html": strings.Repeat("all work and no play\n", 100),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	chain.Daemon(t, exec.Command(nginx, "-e", filepath.Join(dir, "error.log"), "-c", filepath.Join(dir, "nginx.conf")), chain.Accepts("127.0.0.1:"+port), syscall.SIGTERM)
	return "http://127.0.0.1:" + port
}

// wrk reports no error, and has the connections at the end that it had at the beginning.
func TestWrkNoticesNothing(t *testing.T) {
	wrk := chain.Find(t, "wrk", "wrk")
	c := start(t, "-upstream", startNginx(t))
	const connections = 64
	l := chain.Run(t, os.Interrupt, wrk, "-t", "2", "-c", strconv.Itoa(connections), "-d", "10m", "--timeout", "30s", "http://"+c.Addr+"/index.html")
	before := chain.AwaitClients(t, c.Addr, connections)
	for generation := 2; generation <= upgrades+1; generation++ {
		c.Upgrade(generation)
	}
	after := chain.Clients(t, c.Addr)
	output := l.End()[0]
	if !slices.Equal(before, after) {
		t.Errorf("reconnects: connections from %v at the beginning, from %v at the end", before, after)
	}
	requests := regexp.MustCompile(`(\d+) requests in`).FindStringSubmatch(output)
	if requests == nil || strings.Contains(output, "Socket errors") || strings.Contains(output, "Non-2xx") {
		t.Error(output)
	} else {
		t.Logf("%d upgrades, %s requests", upgrades, requests[1])
	}
}

// h2load, which speaks HTTP/1.1 here, reports that all requests succeeded.
func TestH2loadNoticesNothing(t *testing.T) {
	h2load := chain.Find(t, "h2load", "nghttp2-client")
	c := start(t, "-upstream", startNginx(t))
	const requests = 20_000 / slowdown
	l := chain.Run(t, nil, h2load, "--h1", "-n", strconv.Itoa(requests), "-c", "50", "-t", "1", "http://"+c.Addr+"/index.html")
	for generation := 2; generation <= upgrades+1; generation++ {
		chain.AwaitClients(t, c.Addr, 50)
		c.Upgrade(generation)
	}
	outputs := l.End()
	for _, output := range outputs {
		want := fmt.Sprintf("requests: %[1]d total, %[1]d started, %[1]d done, %[1]d succeeded, 0 failed, 0 errored, 0 timeout", requests)
		if !strings.Contains(output, want) || !strings.Contains(output, fmt.Sprintf("status codes: %d 2xx, 0 3xx, 0 4xx, 0 5xx", requests)) {
			t.Error(output)
		}
	}
	t.Logf("%d upgrades, %d times %d requests", upgrades, len(outputs), requests)
}
