//go:build unix

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func page(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %s", answer.Proto, body)
}

// TestUpgrades has one server fail to upgrade for each fault, and then upgrade well, and upgrade without probation.
func TestUpgrades(t *testing.T) {
	dir := t.TempDir()
	pidFile, faultFile := filepath.Join(dir, "pid"), filepath.Join(dir, "fault")
	certFile, keyFile := certificate(t, dir)
	s := start(t, "-addr", "127.0.0.1:0", "-pidfile", pidFile, "-fault", faultFile, "-probation", "150ms", "-tls-cert", certFile, "-tls-key", keyFile)
	addr := s.waitFor(`msg=listening .*addr=(\S+) generation=1`)[0]
	s.waitFor(`msg=serving .*generation=1`)
	defer func() {
		signalIn(t, pidFile, syscall.SIGTERM)
		s.waitFor(`msg=done .*generation=2`)
		for range s.log { // to the end of all processes
		}
		s.cmd.Wait()
	}()
	clients := map[string]*http.Client{}
	for proto, alpn := range map[string]string{"HTTP/1.1": "http/1.1", "HTTP/2.0": "h2"} {
		clients[proto] = &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			ForceAttemptHTTP2: alpn == "h2",
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}},
		}}
	}
	check := func(generation int) {
		t.Helper()
		for proto, client := range clients {
			got, want := page(t, client, "https://"+addr+"/"), fmt.Sprintf("%s generation %d pid ", proto, generation)
			if !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
	check(1)
	for fault, says := range map[string]string{
		"exit-before-ready":      `msg=failed .*fault: exit before ready`,
		"crash-after-ready 10ms": `fault: crash`,
		"unhealthy":              `upgrade failed.*fault: unhealthy`,
		"explode":                `msg=failed .*unknown fault .*explode`,
	} {
		if err := os.WriteFile(faultFile, []byte(fault+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		signalIn(t, pidFile, syscall.SIGHUP)
		s.waitFor(says)
		if !strings.HasPrefix(says, "upgrade failed") {
			s.waitFor(`upgrade failed`)
		}
		check(1)
	}
	if err := os.Remove(faultFile); err != nil {
		t.Fatal(err)
	}
	signalIn(t, pidFile, syscall.SIGHUP)
	s.waitFor(`msg=serving .*generation=2`)
	check(2)
}

// TestWebSocketGoesOn has a client that is in the middle of a frame in each upgrade.
func TestWebSocketGoesOn(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	s := start(t, "-addr", "127.0.0.1:0", "-pidfile", pidFile, "-probation", "0")
	addr := s.waitFor(`msg=listening .*addr=(\S+) generation=1`)[0]
	s.waitFor(`msg=serving .*generation=1`)
	defer func() {
		signalIn(t, pidFile, syscall.SIGTERM)
		for range s.log { // to the end of all processes
		}
		s.cmd.Wait()
	}()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The example of RFC 6455, section 1.3.
	if got, want := response.Header.Get("Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; got != want || response.StatusCode != 101 {
		t.Fatalf("got %d %q, want 101 %q", response.StatusCode, got, want)
	}
	says, want := conversation()
	parts := 3
	for part := range parts {
		if _, err := conn.Write(says[part*len(says)/parts : (part+1)*len(says)/parts]); err != nil {
			t.Fatal(err)
		}
		if part < parts-1 {
			signalIn(t, pidFile, syscall.SIGHUP)
			s.waitFor(fmt.Sprintf(`msg=serving .*generation=%d`, part+2))
		}
	}
	if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v, want the %d of the conversation", len(got), err, len(want))
	}
}

// TestTakeover starts the server twice with the same flags.
func TestTakeover(t *testing.T) {
	dir := t.TempDir()
	flags := []string{"-addr", "127.0.0.1:0", "-pidfile", filepath.Join(dir, "pid"), "-socket", filepath.Join(dir, "socket"), "-probation", "0"}
	first := start(t, flags...)
	addr := first.waitFor(`msg=listening .*addr=(\S+) generation=1`)[0]
	first.waitFor(`msg=serving`)
	second := start(t, flags...)
	if got := second.waitFor(`msg=listening .*addr=(\S+) generation=2`)[0]; got != addr {
		t.Errorf("second listens on %s, want %s", got, addr)
	}
	second.waitFor(`msg=serving .*generation=2`)
	first.waitFor(`msg=done`)
	if err := first.cmd.Wait(); err != nil {
		t.Errorf("first: %v", err)
	}
	if got, want := page(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+addr+"/"), fmt.Sprintf("HTTP/1.1 generation 2 pid %d\n", second.cmd.Process.Pid); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	signalIn(t, filepath.Join(dir, "pid"), syscall.SIGTERM)
	if err := second.cmd.Wait(); err != nil {
		t.Errorf("second: %v", err)
	}
}

// TestHangBeforeReady checks that a successor with that fault neither gets ready nor ends.
func TestHangBeforeReady(t *testing.T) {
	dir := t.TempDir()
	pidFile, faultFile := filepath.Join(dir, "pid"), filepath.Join(dir, "fault")
	if err := os.WriteFile(faultFile, []byte("hang-before-ready"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, "-addr", "127.0.0.1:0", "-pidfile", pidFile, "-fault", faultFile)
	s.waitFor(`msg=serving`) // the first generation does not read the file
	signalIn(t, pidFile, syscall.SIGHUP)
	s.waitFor(`fault: hanging before ready`)
	signalIn(t, pidFile, syscall.SIGTERM)
	s.waitFor(`msg=done .*generation=1`)
	for range s.log { // the hanging successor has ended as well: its predecessor sees to that
	}
	s.cmd.Wait()
}

func TestBadFlags(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tests := map[string]struct {
		status int
		says   string
	}{
		"extra":                          {2, `unexpected argument "extra"`},
		"-nonsense":                      {2, "not defined: -nonsense"},
		"-tls-cert x":                    {2, "-tls-cert and -tls-key go together"},
		"-tls-key x":                     {2, "-tls-cert and -tls-key go together"},
		"-tls-cert /x -tls-key /y":       {1, "/x"},
		"-probation -1s":                 {2, "must not be negative"},
		"-drain -1s":                     {2, "must not be negative"},
		"-drain 1":                       {2, "parse error"},
		"-addr 127.0.0.1:99999":          {1, "99999"},
		"-addr " + taken.Addr().String(): {1, "address already in use"},
	}
	for flags, want := range tests {
		cmd := exec.Command(os.Args[0], append([]string{"-addr", "127.0.0.1:0"}, strings.Fields(flags)...)...)
		cmd.Env = append(os.Environ(), mainVariable+"=1")
		said, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != want.status || !strings.Contains(string(said), want.says) {
			t.Errorf("%s: %v, %s; want status %d and %q", flags, err, said, want.status, want.says)
		}
	}
}
