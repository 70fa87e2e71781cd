//go:build linux || darwin || freebsd

package listener

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A generation that has handed over still answers what it was asked.
func TestLeaveEndsReadingAndNotWriting(t *testing.T) {
	dir := t.TempDir()
	var s Set
	ln, err := s.Listen(t.Context(), "web", "unix", filepath.Join(dir, "web.sock"))
	if err != nil {
		t.Fatal(err)
	}
	packets, err := s.ListenPacket(t.Context(), "dns", "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := s.File("journal", func() (*os.File, error) { return os.Create(filepath.Join(dir, "journal")) })
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	blocked := make(chan error, 1)
	go func() {
		_, _, err := packets.ReadFrom(make([]byte, 10))
		blocked <- err
	}()

	if err := s.Leave(); err != nil {
		t.Fatal(err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: want net.ErrClosed, have %v", err)
	}
	if err := <-blocked; !errors.Is(err, net.ErrClosed) {
		t.Errorf("reader that waited: want net.ErrClosed, have %v", err)
	}
	s.Resume() // does not bring it back
	if _, err := client.WriteTo([]byte("late"), packets.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := packets.ReadFrom(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: want net.ErrClosed, have %v", err)
	}
	if _, err := packets.WriteTo([]byte("answer"), client.LocalAddr()); err != nil {
		t.Errorf("write: %v", err)
	}
	_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := client.ReadFrom(make([]byte, 10)); err != nil {
		t.Errorf("client: %v", err)
	}
	if _, err := file.WriteString("entry"); err != nil {
		t.Errorf("file: %v", err)
	}

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := packets.WriteTo([]byte("x"), client.LocalAddr()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after Close: want net.ErrClosed, have %v", err)
	}
	if _, err := file.WriteString("x"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("file after Close: want os.ErrClosed, have %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "web.sock")); err != nil {
		t.Errorf("socket file: want it kept for the successor, have %v", err)
	}
}

// A successor that gives up removes what it has bound itself, and leaves what it has inherited.
func TestAbandonUnlinksOnlyItsOwn(t *testing.T) {
	a, _ := newSet(t)
	inherited, own := tempPath(t, "inherited"), tempPath(t, "own")
	must(a.Listen(t.Context(), "inherited", "unix", inherited))(t)
	b, _ := handOver(t, a)
	must(b.Listen(t.Context(), "inherited", "unix", inherited))(t)
	must(b.Listen(t.Context(), "own", "unix", own))(t)
	if err := b.Abandon(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(inherited); err != nil {
		t.Errorf("inherited: want it kept, have %v", err)
	}
	if _, err := os.Lstat(own); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("own: want it removed, have %v", err)
	}
}

// The last generation stops being found at once, and still has its files while it drains.
func TestRetireUnlinksAndKeepsFilesOpen(t *testing.T) {
	s, _ := newSet(t)
	path := tempPath(t, "web")
	must(s.Listen(t.Context(), "web", "unix", path))(t)
	file := must(s.File("journal", func() (*os.File, error) { return os.Create(filepath.Join(t.TempDir(), "journal")) }))(t)
	if err := s.Retire(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket file: want it removed, have %v", err)
	}
	if _, err := file.WriteString("entry"); err != nil {
		t.Errorf("file: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := file.WriteString("entry"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("file after Close: want os.ErrClosed, have %v", err)
	}
}
