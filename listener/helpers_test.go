//go:build unix

package listener

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// within is the time after which a test that waits for something gives up. Nothing waits for it to pass.
const within = 20 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	t.Cleanup(cancel)
	return ctx
}

// must returns v, or ends the test: must(f())(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newSet returns a Set that the test closes, and the log it writes.
func newSet(t testing.TB) (*Set, *strings.Builder) {
	t.Helper()
	var log strings.Builder
	s := &Set{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, &log
}

// handOver gives everything that from holds to a new Set, as a successor would get it.
func handOver(t testing.TB, from *Set) (*Set, *strings.Builder) {
	t.Helper()
	to, log := newSet(t)
	handOverTo(t, from, to)
	return to, log
}

func handOverTo(t testing.TB, from, to *Set) {
	t.Helper()
	for _, sock := range must(from.Sockets())(t) {
		if err := to.Inherit(sock); err != nil {
			t.Fatal(err)
		}
	}
}

// tempPath is a path for a Unix socket, short enough for sun_path whatever the test is called.
func tempPath(t testing.TB, name string) string {
	t.Helper()
	dir := must(os.MkdirTemp("", "seg"))(t)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(must(filepath.EvalSymlinks(dir))(t), name)
}

// place is a network and an address to listen on.
type place struct{ network, address string }

func streamPlaces(t testing.TB) []place {
	places := []place{
		{"tcp", "127.0.0.1:0"}, {"tcp", ":0"}, {"tcp", "0.0.0.0:0"}, {"tcp", "localhost:0"},
		{"tcp4", "127.0.0.1:0"}, {"tcp4", ":0"},
		{"unix", tempPath(t, "s")},
	}
	if hasIPv6() {
		places = append(places, place{"tcp", "[::1]:0"}, place{"tcp6", "[::1]:0"}, place{"tcp6", ":0"}, place{"tcp", "[::]:0"})
	}
	if runtime.GOOS == "linux" {
		places = append(places, place{"unixpacket", tempPath(t, "p")},
			place{"unix", "@" + tempPath(t, "a")}, place{"unix", "\x00" + tempPath(t, "n")}, place{"unix", ""})
	}
	return places
}

func packetPlaces(t testing.TB) []place {
	places := []place{
		{"udp", "127.0.0.1:0"}, {"udp", ":0"}, {"udp", "localhost:0"}, {"udp4", "127.0.0.1:0"}, {"udp4", ":0"},
		{"unixgram", tempPath(t, "d")},
	}
	if hasIPv6() {
		places = append(places, place{"udp", "[::1]:0"}, place{"udp6", "[::1]:0"}, place{"udp6", ":0"})
	}
	if runtime.GOOS == "linux" {
		places = append(places, place{"unixgram", "@" + tempPath(t, "a")}, place{"unixgram", ""})
	}
	return places
}

func (p place) String() string { return strings.ReplaceAll(p.network+" "+p.address, "\x00", "NUL") }

func hasIPv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// dial connects to a bound address.
func dial(t testing.TB, addr net.Addr) net.Conn {
	t.Helper()
	if addr.Network() == "unixgram" {
		// A datagram can only be answered if its sender has a name.
		c := must(net.DialUnix("unixgram", &net.UnixAddr{Net: "unixgram", Name: tempPath(t, "c")}, addr.(*net.UnixAddr)))(t)
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := must(dialErr(addr))(t)
	t.Cleanup(func() { c.Close() })
	return c
}

func dialErr(addr net.Addr) (net.Conn, error) {
	to := addr.String()
	for _, wildcard := range []string{"[::]:", "0.0.0.0:"} {
		if port, ok := strings.CutPrefix(to, wildcard); ok {
			loopback := "127.0.0.1:"
			if wildcard == "[::]:" && hasIPv6() {
				loopback = "[::1]:"
			}
			to = loopback + port
		}
	}
	d := net.Dialer{Timeout: within}
	return d.Dial(addr.Network(), to)
}

// accepted is what an Accept came back with.
type accepted struct {
	conn *Conn
	err  error
}

func goAccept(l *Listener) <-chan accepted {
	result := make(chan accepted, 1)
	go func() {
		c, err := l.AcceptConn()
		result <- accepted{c, err}
	}()
	return result
}

func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(within):
		t.Fatalf("nothing came\n%s", stacks())
		panic("unreachable")
	}
}

func stacks() []byte {
	b := make([]byte, 1<<20)
	return b[:runtime.Stack(b, true)]
}

// exchange sends a line each way over two ends of a connection.
func exchange(t testing.TB, client, server net.Conn) {
	t.Helper()
	for i, ends := range [][2]net.Conn{{client, server}, {server, client}} {
		want := fmt.Sprintf("hello %d", i)
		if _, err := ends[0].Write([]byte(want)); err != nil {
			t.Fatal(err)
		}
		have := make([]byte, len(want))
		if _, err := io.ReadFull(ends[1], have); err != nil {
			t.Fatal(err)
		}
		if string(have) != want {
			t.Fatalf("have %q, want %q", have, want)
		}
	}
}

// openFDs lists the descriptors of this process, as /proc shows them.
func openFDs(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd here")
	}
	var list []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "/proc/") {
			list = append(list, e.Name()+" "+to)
		}
	}
	return list
}

// settledFDs is openFDs once that stays the same: a server of an earlier test closes a connection on a goroutine of its own, when
// its read has come back, and nothing tells when.
func settledFDs(t *testing.T) []string {
	t.Helper()
	const looks = 20
	runtime.GC() // closes what earlier tests have dropped, which would else be closed at any time
	have := openFDs(t)
	for same, deadline := 0, time.Now().Add(within); same < looks && time.Now().Before(deadline); same++ {
		time.Sleep(time.Millisecond)
		now := openFDs(t)
		if !slices.Equal(have, now) {
			same = 0
		}
		have = now
	}
	return have
}

// leavesNoFD runs f and fails if it leaves descriptors behind, or closes foreign ones.
func leavesNoFD(t *testing.T, f func()) {
	t.Helper()
	(&net.Dialer{}).Dial("unix", "/nonexistent") // the runtime's poller has its descriptors from here on
	before := settledFDs(t)
	f()
	after := openFDs(t)
	for _, fd := range after {
		if !slices.Contains(before, fd) {
			t.Errorf("descriptor left: %s", fd)
		}
	}
	for _, fd := range before {
		// The pipes of splice are kept by package net in a pool, which the garbage collector empties.
		if !slices.Contains(after, fd) && !strings.Contains(fd, " pipe:") {
			t.Errorf("foreign descriptor closed: %s", fd)
		}
	}
}

// nonblock reports O_NONBLOCK of the description.
func nonblock(t testing.TB, c syscall.Conn) bool {
	t.Helper()
	var flags int
	var err error
	if closed := control(c, func(fd uintptr) { flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0) }); closed != nil || err != nil {
		t.Fatal(closed, err)
	}
	return flags&unix.O_NONBLOCK != 0
}

// intOption reads a socket option.
func intOption(t testing.TB, c syscall.Conn, level, name int) int {
	t.Helper()
	var v int
	var err error
	if closed := control(c, func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, name) }); closed != nil || err != nil {
		t.Fatal(closed, err)
	}
	return v
}
