//go:build unix

package listener

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"unsafe"
)

// pair is a connection between a client and a Conn.
func pair(t testing.TB, p place) (client net.Conn, server *Conn) {
	t.Helper()
	s, _ := newSet(t)
	l := must(s.Listen(testContext(t), "web", p.network, p.address))(t)
	t.Cleanup(func() { l.CloseConns() })
	client = dial(t, l.Addr())
	server = must(l.AcceptConn())(t)
	return client, server
}

func connPlaces(t testing.TB) []place {
	return []place{{"tcp", "127.0.0.1:0"}, {"unix", tempPath(t, "s")}}
}

func TestConn(t *testing.T) {
	for _, p := range streamPlaces(t) {
		t.Run(p.String(), func(t *testing.T) {
			client, c := pair(t, p)
			exchange(t, client, c)
			if have, want := c.LocalAddr().String(), client.RemoteAddr().String(); have != want {
				t.Errorf("local address: have %s, want %s", have, want)
			}
			if have, want := c.RemoteAddr().Network(), client.LocalAddr().Network(); have != want {
				t.Errorf("remote network: have %s, want %s", have, want)
			}
			switch c.NetConn().(type) {
			case *net.TCPConn, *net.UnixConn:
			default:
				t.Errorf("NetConn is a %T", c.NetConn())
			}
			// Deadlines.
			for _, set := range []func(time.Time) error{c.SetReadDeadline, c.SetDeadline} {
				if err := set(past); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
					t.Errorf("read: have %v, want a timeout", err)
				}
			}
			if _, err := c.Write([]byte("x")); !os.IsTimeout(err) {
				t.Errorf("write: have %v, want a timeout", err)
			}
			if err := c.SetWriteDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			// Half closes.
			exchange(t, client, c)
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("have %v, want EOF", err)
			}
			if err := c.CloseRead(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("have %v, want EOF", err)
			}
		})
	}
}

// Copying through a Conn gives the right bytes, from and to everything, and where package net needs no buffer, Conn needs none.
func TestConnCopies(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	onlyReader := func(r io.Reader) io.Reader { return struct{ io.Reader }{r} }
	sources := []struct {
		name string
		open func(t *testing.T) io.Reader
		zero string // the destinations to which Linux copies without a buffer
	}{
		{"file", func(t *testing.T) io.Reader {
			f := must(os.Open(path))(t)
			t.Cleanup(func() { f.Close() })
			return f
		}, "tcp unix"},
		{"reader", func(t *testing.T) io.Reader { return onlyReader(bytes.NewReader(data)) }, ""},
		{"tcp", func(t *testing.T) io.Reader { return filled(t, place{"tcp", "127.0.0.1:0"}, data) }, "tcp unix"},
		{"unix", func(t *testing.T) io.Reader { return filled(t, place{"unix", tempPath(t, "s")}, data) }, "tcp"},
	}
	ways := []struct {
		name string
		copy func(c *Conn, r io.Reader) (int64, error)
	}{
		{"io.Copy", func(c *Conn, r io.Reader) (int64, error) { return io.Copy(c, r) }},
		{"io.CopyN", func(c *Conn, r io.Reader) (int64, error) { return io.CopyN(c, r, int64(len(data))) }},
		{"ReadFrom", func(c *Conn, r io.Reader) (int64, error) { return c.ReadFrom(r) }},
		{"ReadFrom limited", func(c *Conn, r io.Reader) (int64, error) {
			limited := &io.LimitedReader{R: r, N: int64(len(data)) + 5}
			n, err := c.ReadFrom(limited)
			if limited.N != 5 {
				t.Errorf("limited reader: have %d left, want 5", limited.N)
			}
			return n, err
		}},
	}
	for _, to := range connPlaces(t) {
		for _, from := range sources {
			for _, way := range ways {
				t.Run(from.name+" to "+to.network+" by "+way.name, func(t *testing.T) {
					if to.network == "unix" {
						to.address = tempPath(t, "d")
					}
					client, c := pair(t, to)
					sum := make(chan [32]byte, 1)
					go func() {
						hash := sha256.New()
						io.CopyBuffer(struct{ io.Writer }{hash}, struct{ io.Reader }{client}, make([]byte, 1<<16))
						sum <- [32]byte(hash.Sum(nil))
					}()
					source := from.open(t)
					n, err := way.copy(c, source)
					if err != nil || n != int64(len(data)) {
						t.Fatalf("copied %d, %v", n, err)
					}
					c.Close()
					if receive(t, sum) != sha256.Sum256(data) {
						t.Error("the bytes are not the same")
					}
				})
			}
		}
	}
}

// filled is a Conn from which data can be read, and EOF.
func filled(t testing.TB, p place, data []byte) *Conn {
	client, c := pair(t, p)
	go func() {
		client.Write(data)
		client.Close()
	}()
	return c
}

// allocated is the memory that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// sendfile and splice stay: copying between Conns allocates no buffer (io.Copy's has 32 KiB) on Linux where package net does not.
func TestConnCopiesWithoutBuffer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("package net splices on Linux")
	}
	const bufferSize = 32 << 10
	data := make([]byte, 64<<10) // fits the socket's buffers, so nobody needs to read meanwhile
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		from, to string
		bare     bool // without Segue, to see that the test sees
		want     bool
	}{
		{"file", "tcp", false, true},
		{"file", "unix", false, true},
		{"tcp", "tcp", false, true},
		{"tcp", "tcp", true, true},
		{"unix", "tcp", false, true},
		{"tcp", "unix", false, true},
		{"unix", "unix", false, false},
		{"reader", "tcp", false, false},
	}
	for _, tt := range tests {
		open := func(network string) place {
			if network == "tcp" {
				return place{"tcp", "127.0.0.1:0"}
			}
			return place{network, tempPath(t, "s")}
		}
		for _, way := range []string{"io.Copy", "io.CopyN", "ReadFrom"} {
			var source io.Reader
			switch tt.from {
			case "file":
				f := must(os.Open(path))(t)
				defer f.Close()
				source = f
			case "reader":
				source = struct{ io.Reader }{bytes.NewReader(data)}
			default:
				client, c := pair(t, open(tt.from))
				if _, err := client.Write(data); err != nil {
					t.Fatal(err)
				}
				client.Close()
				source = c
				if tt.bare {
					source = c.NetConn()
				}
			}
			client, c := pair(t, open(tt.to))
			go io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{client}, make([]byte, 64<<10))
			var to io.Writer = c
			if tt.bare {
				to = c.NetConn()
			}
			var n int64
			var err error
			bytes := allocated(func() {
				switch way {
				case "io.Copy":
					n, err = io.Copy(to, source)
				case "io.CopyN":
					n, err = io.CopyN(to, source, int64(len(data)))
				case "ReadFrom":
					n, err = to.(io.ReaderFrom).ReadFrom(source)
				}
			})
			if err != nil || n != int64(len(data)) {
				t.Errorf("%s to %s: copied %d, %v", tt.from, tt.to, n, err)
			}
			if way == "io.CopyN" && (tt.from == "file" || tt.from == "tcp") && tt.to == "unix" {
				continue // package net does not do this either: io.CopyN hides the source's WriteTo
			}
			if have := bytes < bufferSize; have != tt.want {
				t.Errorf("%s to %s by %s, bare %v: allocated %d bytes, want no buffer: %v", tt.from, tt.to, way, tt.bare, bytes, tt.want)
			}
		}
	}
}

// Invariant 9: no allocation for a read or a write, and little memory for a connection.
func TestConnCosts(t *testing.T) {
	for _, p := range connPlaces(t) {
		client, c := pair(t, p)
		buf := make([]byte, 100)
		allocs := testing.AllocsPerRun(100, func() {
			c.Write(buf[:10])
			io.ReadFull(client, buf[:10])
			client.Write(buf[:10])
			io.ReadFull(c, buf[:10])
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations for a write and a read", p, allocs)
		}
	}
	if size := unsafe.Sizeof(Conn{}); size > 256 {
		t.Errorf("a Conn has %d bytes, want 256 at most", size)
	}
}
