//go:build linux

package listener

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// net.Buffers are written whole and in order, more of them than one writev takes, and by the way that uses writev. (That it does is
// counted in internal/bench.)
func TestConnWritesBuffers(t *testing.T) {
	for _, p := range connPlaces(t) {
		t.Run(p.String(), func(t *testing.T) {
			client, c := pair(t, p)
			var buffers net.Buffers
			for i := range 3000 { // IOV_MAX is 1024
				buffers = append(buffers, bytes.Repeat([]byte{byte(i)}, i%100))
			}
			want := slices.Concat(buffers...)
			read := make(chan []byte, 1)
			go func() {
				have, _ := io.ReadAll(client)
				read <- have
			}()
			n, err := buffers.WriteTo(c)
			if err != nil || n != int64(len(want)) {
				t.Fatalf("wrote %d, %v", n, err)
			}
			c.Close()
			if !bytes.Equal(receive(t, read), want) {
				t.Error("the bytes are not the same")
			}
		})
	}
}

// Invariant 1: nothing that a server still does with a detached connection reaches its client, by whatever way.
func TestInvariant1DetachedConnIsInert(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, []byte("file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range connPlaces(t) {
		t.Run(p.String(), func(t *testing.T) {
			s, _ := newSet(t)
			l := must(s.Listen(testContext(t), "web", p.network, p.address))(t)
			client := dial(t, l.Addr())
			c := must(l.AcceptConn())(t)
			c.MarkFresh()
			detached := make(chan *Detached, 1)
			l.Detach(1, func(d *Detached, _ bool) { detached <- d })
			if n, err := c.Read(make([]byte, serverBuffer)); n != 0 || err != io.EOF {
				t.Fatalf("read: have %d, %v, want EOF", n, err)
			}
			d := receive(t, detached)
			defer d.Close()

			if n, err := c.Write([]byte("goodbye")); n != 7 || err != nil {
				t.Errorf("write: have %d, %v, want success", n, err)
			}
			file := must(os.Open(path))(t)
			defer file.Close()
			raw := must(c.SyscallConn())(t)
			for name, do := range map[string]func() error{
				"net.Buffers": func() error { _, err := (&net.Buffers{[]byte("a"), []byte("b")}).WriteTo(c); return err },
				"io.Copy":     func() error { _, err := io.Copy(c, file); return err },
				"ReadFrom":    func() error { _, err := c.ReadFrom(bytes.NewReader([]byte("reader"))); return err },
				"NetConn":     func() error { _, err := c.NetConn().Write([]byte("inner")); return err },
				"RawConn":     func() error { return raw.Write(func(uintptr) bool { return true }) },
				"SetNoDelay":  func() error { return c.SetNoDelay(false) },
				"WriteTo":     func() error { _, err := c.WriteTo(io.Discard); return err },
				"SetDeadline": func() error { return c.SetDeadline(time.Now()) },
			} {
				if err := do(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("%s: have %v, want net.ErrClosed", name, err)
				}
			}
			for name, do := range map[string]func() error{"CloseRead": c.CloseRead, "CloseWrite": c.CloseWrite, "Close": c.Close} {
				if err := do(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if l.CloseConns(); l.Conns() != 0 {
				t.Errorf("have %d connections, want none", l.Conns())
			}
			if err := client.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if n, err := client.Read(make([]byte, 100)); n != 0 || !os.IsTimeout(err) {
				t.Errorf("the client reads %d bytes, %v, want none and a timeout", n, err)
			}
		})
	}
}
