//go:build linux

package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A shell that a plain tableflip service started has tableflip's variable in its environment. A program that is started
// from it is told so, soon, instead of waiting for a parent that does not exist.
func TestStaleTableflipEnvironmentIsRefused(t *testing.T) {
	s := newService(t, config{})
	s.environment = []string{"TABLEFLIP_HAS_PARENT_7DIU3=yes"}
	s.launch(s.program)
	if err := s.wait(s.first); err == nil {
		t.Error("want it to fail")
	}
	s.await("reason", func(l line) bool {
		return strings.Contains(l.raw, "TABLEFLIP_HAS_PARENT_7DIU3") && strings.Contains(l.raw, "unset it")
	})
}

func TestOneLine(t *testing.T) {
	address := freeAddress(t)
	s := newService(t, config{OneLine: true, Address: address})
	s.launch(s.program)
	s.address = address
	s.await("first generation", func(l line) bool {
		return strings.Contains(l.raw, "serving") && strings.Contains(l.raw, "generation=1")
	})
	first := s.first.Process.Pid
	if want, have := fmt.Sprintf("pid %d\n", first), s.get("/"); want != have {
		t.Errorf("want %q, have %q", want, have)
	}
	s.signal(first, syscall.SIGHUP)
	s.await("second generation", func(l line) bool { return strings.HasSuffix(l.raw, "serving generation=2") })
	awaitExit(t, first)
	second := s.get("/")
	if strings.Contains(second, fmt.Sprintf("pid %d\n", first)) {
		t.Errorf("want another process, have %q", second)
	}
	var last int
	if _, err := fmt.Sscanf(second, "pid %d", &last); err != nil {
		t.Fatal(err)
	}
	s.signal(last, syscall.SIGTERM)
	awaitExit(t, last)
}

func TestOneLineOverTLS(t *testing.T) {
	address, dir := freeAddress(t), t.TempDir()
	s := newService(t, config{Dir: dir, OneLine: true, Address: address, Certificate: makeCertificate(t, dir)})
	s.launch(s.program)
	s.await("first generation", func(l line) bool { return strings.HasSuffix(l.raw, "serving generation=1") })
	ask := func() string {
		t.Helper()
		client := &http.Client{Timeout: patience, Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		response, err := client.Get("https://" + address)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	first := s.first.Process.Pid
	if want, have := fmt.Sprintf("pid %d\n", first), ask(); want != have {
		t.Errorf("want %q, have %q", want, have)
	}
	s.signal(first, syscall.SIGHUP)
	s.await("second generation", func(l line) bool { return strings.HasSuffix(l.raw, "serving generation=2") })
	awaitExit(t, first)
	if have := ask(); have == fmt.Sprintf("pid %d\n", first) || !strings.HasPrefix(have, "pid ") {
		t.Errorf("want another process, have %q", have)
	}
}

// A unit of Type=notify hears from each generation that serves which process it is.
func TestServiceManagerIsNotified(t *testing.T) {
	dir := t.TempDir()
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	expect := func(want string) {
		t.Helper()
		buffer := make([]byte, 1000)
		_ = manager.SetReadDeadline(time.Now().Add(patience))
		n, err := manager.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		if have := strings.TrimSpace(string(buffer[:n])); want != have {
			t.Errorf("want %q, have %q", want, have)
		}
	}
	s := newService(t, config{Dir: dir, Probation: -1})
	s.environment = []string{"NOTIFY_SOCKET=" + filepath.Join(dir, "notify")}
	s.launch(s.program)
	s.awaitFirst()
	expect(fmt.Sprintf("READY=1\nMAINPID=%d", s.first.Process.Pid))
	s.hangup(2)
	expect(fmt.Sprintf("READY=1\nMAINPID=%d", s.pid()))
	s.signal(s.pid(), syscall.SIGTERM)
	expect("STOPPING=1")
}
