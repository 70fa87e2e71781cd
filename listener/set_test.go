//go:build unix

package listener

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Each network: opened, handed over, asked for again with the same words, and both hold one socket.
func TestListenInherits(t *testing.T) {
	for _, p := range streamPlaces(t) {
		t.Run(p.String(), func(t *testing.T) {
			ctx := testContext(t)
			a, _ := newSet(t)
			la := must(a.Listen(ctx, "web", p.network, p.address))(t)
			if la.Inherited() || la.Name() != "web" {
				t.Errorf("have inherited %v, name %q", la.Inherited(), la.Name())
			}
			b, _ := handOver(t, a)
			lb := must(b.Listen(ctx, "web", p.network, p.address))(t)
			if !lb.Inherited() {
				t.Error("not inherited")
			}
			if have, want := lb.Addr().String(), la.Addr().String(); have != want {
				t.Errorf("have address %s, want %s", have, want)
			}
			if have, want := lb.Addr().Network(), la.Addr().Network(); have != want {
				t.Errorf("have network %s, want %s", have, want)
			}
			// The predecessor leaves; the socket goes on, its queue too.
			waiting := dial(t, la.Addr())
			if err := a.Leave(); err != nil {
				t.Fatal(err)
			}
			server := receive(t, goAccept(lb))
			if server.err != nil {
				t.Fatal(server.err)
			}
			defer server.conn.Close()
			exchange(t, waiting, server.conn)
			if !nonblock(t, lb) || !nonblock(t, server.conn) {
				t.Error("a socket became blocking")
			}
			// A third generation, from the second.
			c, _ := handOver(t, b)
			if lc := must(c.Listen(ctx, "web", p.network, p.address))(t); lc.Addr().String() != la.Addr().String() {
				t.Errorf("have address %s, want %s", lc.Addr(), la.Addr())
			}
			if err := b.Leave(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestListenPacketInherits(t *testing.T) {
	for _, p := range packetPlaces(t) {
		t.Run(p.String(), func(t *testing.T) {
			ctx := testContext(t)
			a, _ := newSet(t)
			pa := must(a.ListenPacket(ctx, "dns", p.network, p.address))(t)
			b, _ := handOver(t, a)
			pb := must(b.ListenPacket(ctx, "dns", p.network, p.address))(t)
			if !pb.Inherited() || pa.Inherited() || pb.Name() != "dns" || pb.LocalAddr().String() != pa.LocalAddr().String() {
				t.Errorf("have inherited %v at %s, want %s", pb.Inherited(), pb.LocalAddr(), pa.LocalAddr())
			}
			client := dial(t, pa.LocalAddr())
			if _, err := client.Write([]byte("question")); err != nil {
				t.Fatal(err)
			}
			if err := a.Leave(); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, from, err := pb.ReadFrom(buf)
			if err != nil || string(buf[:n]) != "question" {
				t.Fatalf("have %q, %v", buf[:n], err)
			}
			if _, err := pb.WriteTo([]byte("answer"), from); err != nil {
				t.Fatal(err)
			}
			if n, err = client.Read(buf); err != nil || string(buf[:n]) != "answer" {
				t.Fatalf("have %q, %v", buf[:n], err)
			}
			if !nonblock(t, pb) {
				t.Error("the socket became blocking")
			}
		})
	}
}

func TestFileInherits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	a, _ := newSet(t)
	if _, err := a.File("state", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nil open: have %v, want not exist", err)
	}
	fa := must(a.File("state", func() (*os.File, error) { return os.Create(path) }))(t)
	if _, err := a.File("state", nil); !errors.Is(err, ErrNameTaken) {
		t.Errorf("again: have %v, want %v", err, ErrNameTaken)
	}
	if _, err := fa.WriteString("first "); err != nil {
		t.Fatal(err)
	}
	b, _ := handOver(t, a)
	fb := must(b.File("state", func() (*os.File, error) { t.Error("opened anew"); return nil, nil }))(t)
	if err := errors.Join(a.Leave(), a.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := fa.WriteString("x"); err == nil {
		t.Error("the file is still open after Close")
	}
	if _, err := fb.WriteString("second"); err != nil {
		t.Fatal(err)
	}
	if have := string(must(os.ReadFile(path))(t)); have != "first second" {
		t.Errorf("have %q: the offset is not shared", have)
	}
	// A file that its user closes is forgotten.
	fb.Close()
	if socks := must(b.Sockets())(t); len(socks) != 0 {
		t.Errorf("have %d sockets, want none", len(socks))
	}
	want := errors.New("no")
	if _, err := b.File("state", func() (*os.File, error) { return nil, want }); !errors.Is(err, want) {
		t.Errorf("have %v, want %v", err, want)
	}
	if _, err := b.File("state", func() (*os.File, error) { return nil, nil }); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("have %v, want %v", err, os.ErrInvalid)
	}
}

// A pipe that Go made non-blocking must not become blocking for the predecessor because it is handed over.
func TestFilePipeStaysNonblocking(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	a, _ := newSet(t)
	must(a.File("pipe", func() (*os.File, error) { return r, nil }))(t)
	b, _ := handOver(t, a)
	rb := must(b.File("pipe", nil))(t)
	if !nonblock(t, r) || !nonblock(t, rb) {
		t.Error("the pipe became blocking")
	}
	read := make(chan error, 1)
	go func() {
		_, err := rb.Read(make([]byte, 1))
		read <- err
	}()
	if err := rb.SetReadDeadline(past); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, read); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("have %v, want deadline exceeded", err)
	}
}

func TestErrors(t *testing.T) {
	ctx := testContext(t)
	busy := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer busy.Close()
	s, _ := newSet(t)
	must(s.Listen(ctx, "taken", "tcp", "127.0.0.1:0"))(t)
	closed := &Set{}
	closed.Leave()
	listen := func(s *Set, name, network, address string) func() error {
		return func() error { _, err := s.Listen(ctx, name, network, address); return err }
	}
	packet := func(s *Set, name, network, address string) func() error {
		return func() error { _, err := s.ListenPacket(ctx, name, network, address); return err }
	}
	tests := []struct {
		name string
		call func() error
		want error
		text string
	}{
		{"udp to Listen", listen(s, "a", "udp", ":0"), ErrNetwork, "udp"},
		{"no network", listen(s, "a", "", ":0"), ErrNetwork, `"a"`},
		{"tcp to ListenPacket", packet(s, "a", "tcp", ":0"), ErrNetwork, "tcp"},
		{"ip to ListenPacket", packet(s, "a", "ip:icmp", "127.0.0.1"), ErrNetwork, "ip:icmp"},
		{"taken", listen(s, "taken", "tcp", ":0"), ErrNameTaken, `"taken"`},
		{"taken by another kind", packet(s, "taken", "udp", ":0"), ErrNameTaken, `"taken"`},
		{"no name", listen(s, "", "tcp", ":0"), os.ErrInvalid, "name"},
		{"long name", listen(s, strings.Repeat("x", 256), "tcp", ":0"), os.ErrInvalid, "256 bytes"},
		{"address in use", listen(s, "a", "tcp", busy.Addr().String()), syscall.EADDRINUSE, busy.Addr().String()},
		{"long path", listen(s, "a", "unix", "/"+strings.Repeat("x", 200)), syscall.EINVAL, "201 bytes"},
		{"no directory", listen(s, "a", "unix", "/nonexistent/s"), fs.ErrNotExist, "/nonexistent/s"},
		{"closed set, Listen", listen(closed, "a", "tcp", ":0"), net.ErrClosed, "tcp"},
		{"closed set, ListenPacket", packet(closed, "a", "udp", ":0"), net.ErrClosed, "udp"},
		{"closed set, Sockets", func() error { _, err := closed.Sockets(); return err }, net.ErrClosed, "sockets"},
		{"closed set, File", func() error { _, err := closed.File("f", nil); return err }, net.ErrClosed, "file"},
		{"closed set, Close", closed.Close, nil, ""},
		{"closed set, Leave", closed.Leave, nil, ""},
	}
	for _, tt := range tests {
		leavesNoFD(t, func() {
			err := tt.call()
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%s: have %v, want %v with %q", tt.name, err, tt.want, tt.text)
			}
		})
	}
	// Failed names are free again.
	must(s.Listen(ctx, "a", "tcp", "127.0.0.1:0"))(t)
}

// The configuration has changed between the generations.
func TestMismatchBindsFresh(t *testing.T) {
	ctx := testContext(t)
	a, _ := newSet(t)
	la := must(a.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
	path := tempPath(t, "s")
	must(a.Listen(ctx, "sock", "unix", path))(t)
	must(a.ListenPacket(ctx, "dns", "udp", "127.0.0.1:0"))(t)

	b, log := handOver(t, a)
	lb := must(b.Listen(ctx, "web", "tcp", "127.0.0.2:0"))(t)
	if lb.Inherited() || strings.HasPrefix(lb.Addr().String(), "127.0.0.1") {
		t.Errorf("have %s, want a fresh one on 127.0.0.2", lb.Addr())
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("have %d log lines, want one: %s", n, log)
	}
	for _, want := range []string{"web", "127.0.0.2:0", la.Addr().String()} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log: %s", want, log)
		}
	}
	// Another kind under the name, and another path.
	if l := must(b.Listen(ctx, "dns", "tcp", "127.0.0.1:0"))(t); l.Inherited() {
		t.Error("a packet socket became a listener")
	}
	if l := must(b.Listen(ctx, "sock", "unix", path+"2"))(t); l.Inherited() {
		t.Error("inherited under another path")
	}
	log.Reset()
	if have, want := b.CloseUnclaimed(), []string{"dns", "sock", "web"}; !slices.Equal(have, want) {
		t.Errorf("have unclaimed %v, want %v", have, want)
	}
	if n := strings.Count(log.String(), "\n"); n != 3 {
		t.Errorf("have %d log lines, want 3: %s", n, log)
	}
	if have := b.CloseUnclaimed(); have != nil {
		t.Errorf("have %v, want none the second time", have)
	}
	// The predecessor still serves what the successor did not want.
	exchangeOver(t, la)
}

// exchangeOver connects to a listener and talks.
func exchangeOver(t testing.TB, l *Listener) {
	t.Helper()
	result := goAccept(l)
	client := dial(t, l.Addr())
	server := receive(t, result)
	if server.err != nil {
		t.Fatal(server.err)
	}
	defer server.conn.Close()
	exchange(t, client, server.conn)
}

// A fresh socket that overlaps the inherited one cannot be bound, and the error tells why.
func TestMismatchThatOverlaps(t *testing.T) {
	ctx := testContext(t)
	a, _ := newSet(t)
	la := must(a.Listen(ctx, "web", "tcp4", "127.0.0.1:0"))(t)
	b, _ := handOver(t, a)
	_, port, _ := net.SplitHostPort(la.Addr().String())
	_, err := b.Listen(ctx, "web", "tcp4", ":"+port)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), la.Addr().String()) {
		t.Errorf("have %v, want %v and the inherited address", err, syscall.EADDRINUSE)
	}
	// Asked properly it is still there.
	if l := must(b.Listen(ctx, "web", "tcp", la.Addr().String()))(t); !l.Inherited() {
		t.Error("not inherited")
	}
}

// Several sockets on one address, each under its name.
func TestReusePort(t *testing.T) {
	ctx := testContext(t)
	reuse := func(network, address string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return err
	}
	a, _ := newSet(t)
	a.ListenConfig.Control = reuse
	first := must(a.Listen(ctx, "web-0", "tcp", "127.0.0.1:0"))(t)
	addr := first.Addr().String()
	names := []string{"web-0"}
	for i := 1; i < 4; i++ {
		names = append(names, "web-"+strconv.Itoa(i))
		must(a.Listen(ctx, names[i], "tcp", addr))(t)
	}
	inodes := socketInodes(t, a)
	b, _ := handOver(t, a)
	for _, name := range names {
		if l := must(b.Listen(ctx, name, "tcp", addr))(t); !l.Inherited() || intOption(t, l, unix.SOL_SOCKET, unix.SO_REUSEPORT) == 0 {
			t.Errorf("%s: not inherited with its option", name)
		}
	}
	if have := socketInodes(t, b); !slices.Equal(have, inodes) {
		t.Errorf("have inodes %v, want %v: sockets changed names", have, inodes)
	}
}

// socketInodes lists the kernel's numbers of the Set's sockets, in the order of their names.
func socketInodes(t *testing.T, s *Set) (inodes []uint64) {
	for _, sock := range must(s.Sockets())(t) {
		defer sock.File.Close()
		info := must(sock.File.Stat())(t)
		inodes = append(inodes, info.Sys().(*syscall.Stat_t).Ino)
	}
	return inodes
}

func TestSocketsAreSortedAndCloseOnExec(t *testing.T) {
	ctx := testContext(t)
	s, _ := newSet(t)
	for _, name := range []string{"c", "a", "d", "b"} {
		must(s.Listen(ctx, name, "tcp", "127.0.0.1:0"))(t)
	}
	must(s.Listen(ctx, "gone", "tcp", "127.0.0.1:0"))(t).Close()
	leavesNoFD(t, func() {
		var names []string
		for _, sock := range must(s.Sockets())(t) {
			names = append(names, sock.Name)
			if flags := must(unix.FcntlInt(sock.File.Fd(), unix.F_GETFD, 0))(t); flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("%s: not close-on-exec", sock.Name)
			}
			if !nonblock(t, sock.File) {
				t.Errorf("%s: Fd made it blocking", sock.Name)
			}
			sock.File.Close()
		}
		if want := []string{"a", "b", "c", "d"}; !slices.Equal(names, want) {
			t.Errorf("have %v, want %v", names, want)
		}
	})
	must(s.Listen(ctx, "gone", "tcp", "127.0.0.1:0"))(t) // Close has given the name back
}

// Without descriptors left, Sockets and Listen fail whole, and what was inherited is still there afterwards.
func TestNoDescriptorsLeft(t *testing.T) {
	ctx := testContext(t)
	a, _ := newSet(t)
	la := must(a.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
	must(a.Listen(ctx, "web2", "tcp", "127.0.0.1:0"))(t)
	b, _ := handOver(t, a)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	leavesNoFD(t, func() {
		// Room for one more: enough for the first duplicate, not for the second.
		low := limit
		low.Cur = 1 + lowestFree(t, limit.Cur)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
			t.Fatal(err)
		}
		_, sockets := a.Sockets()
		_, listen := b.Listen(ctx, "web", "tcp", "127.0.0.1:0")
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(sockets, syscall.EMFILE) {
			t.Errorf("Sockets: have %v, want %v", sockets, syscall.EMFILE)
		}
		if !errors.Is(listen, syscall.EMFILE) {
			t.Errorf("Listen: have %v, want %v", listen, syscall.EMFILE)
		}
	})
	if l := must(b.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t); l.Addr().String() != la.Addr().String() {
		t.Errorf("have %s, want %s", l.Addr(), la.Addr())
	}
}

// lowestFree is the number of the next descriptor, in the type that the platform's Rlimit has.
func lowestFree[T int64 | uint64](t *testing.T, _ T) T {
	fd := must(unix.Dup(0))(t)
	defer unix.Close(fd)
	return T(fd)
}

// Keepalive and TCP_NODELAY of accepted connections: the same from an inherited listener as from one opened with that ListenConfig.
func TestConnOptions(t *testing.T) {
	onListener := func(network, address string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpKeepIdle, 123),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 45),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 6),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 40960),
			)
		})
		return err
	}
	const s = 1e9
	tests := []struct {
		name string
		lc   net.ListenConfig
	}{
		{"default", net.ListenConfig{}},
		{"period", net.ListenConfig{KeepAlive: 77 * s}},
		{"off", net.ListenConfig{KeepAlive: -1}},
		{"off, but on in the socket", net.ListenConfig{KeepAlive: -1, Control: onListener}},
		{"default over the socket's", net.ListenConfig{Control: onListener}},
		{"config", net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 11 * s, Interval: 12 * s, Count: 13}}},
		{"config unchanged", net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}}},
		{"config unchanged over the socket's", net.ListenConfig{Control: onListener,
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: 3 * s, Count: -1}}},
		{"config disabled", net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Idle: 5 * s}}},
	}
	options := func(t *testing.T, l *Listener, mptcp bool) [6]int {
		var d net.Dialer
		d.SetMultipathTCP(mptcp)
		client := must(d.Dial("tcp", l.Addr().String()))(t)
		defer client.Close()
		a := receive(t, goAccept(l))
		if a.err != nil {
			t.Fatal(a.err)
		}
		defer a.conn.Close()
		return [6]int{
			intOption(t, a.conn, unix.IPPROTO_TCP, unix.TCP_NODELAY),
			intOption(t, a.conn, unix.SOL_SOCKET, unix.SO_KEEPALIVE),
			intOption(t, a.conn, unix.IPPROTO_TCP, tcpKeepIdle),
			intOption(t, a.conn, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL),
			intOption(t, a.conn, unix.IPPROTO_TCP, unix.TCP_KEEPCNT),
			intOption(t, a.conn, unix.SOL_SOCKET, unix.SO_RCVBUF),
		}
	}
	for _, mptcp := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(tt.name+" mptcp="+strconv.FormatBool(mptcp), func(t *testing.T) {
				ctx := testContext(t)
				a, _ := newSet(t)
				a.ListenConfig = tt.lc
				a.ListenConfig.SetMultipathTCP(mptcp)
				la := must(a.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
				b, _ := newSet(t)
				b.ListenConfig = tt.lc
				handOverTo(t, a, b)
				lb := must(b.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
				want := options(t, la, mptcp)
				if have := options(t, lb, mptcp); have != want {
					t.Errorf("nodelay, keepalive, idle, interval, count, rcvbuf: have %v, want %v", have, want)
				}
				if have := options(t, la, mptcp); have != want {
					t.Errorf("the predecessor's became %v, want %v", have, want)
				}
			})
		}
	}
}

// Options of the packet socket itself travel with it.
func TestPacketOptions(t *testing.T) {
	ctx := testContext(t)
	a, _ := newSet(t)
	pa := must(a.ListenPacket(ctx, "dns", "udp", "127.0.0.1:0"))(t)
	if err := errors.Join(pa.SetReadBuffer(50000), pa.SetWriteBuffer(60000)); err != nil {
		t.Fatal(err)
	}
	b, _ := handOver(t, a)
	pb := must(b.ListenPacket(ctx, "dns", "udp", "127.0.0.1:0"))(t)
	for _, opt := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		if have, want := intOption(t, pb, unix.SOL_SOCKET, opt), intOption(t, pa, unix.SOL_SOCKET, opt); have != want {
			t.Errorf("option %d: have %d, want %d", opt, have, want)
		}
	}
}

// Nothing is left of a whole life: opened, handed over, half of it claimed, served, left, closed.
func TestNoDescriptorLeaks(t *testing.T) {
	ctx := testContext(t)
	leavesNoFD(t, func() {
		a := &Set{}
		la := must(a.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
		must(a.Listen(ctx, "unclaimed", "tcp", "127.0.0.1:0"))(t)
		must(a.Listen(ctx, "never asked", "unix", tempPath(t, "s")))(t)
		must(a.ListenPacket(ctx, "dns", "udp", "127.0.0.1:0"))(t)
		must(a.File("f", func() (*os.File, error) { return os.Open(os.DevNull) }))(t)
		b := &Set{Logger: slog.New(slog.DiscardHandler)}
		handOverTo(t, a, b)
		lb := must(b.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
		must(b.File("f", nil))(t)
		c := must(dialErr(la.Addr()))(t)
		c.Close()
		a.Pause()
		sc := must(lb.Accept())(t)
		sc.Close()
		if err := errors.Join(a.Leave(), a.Close(), b.Close()); err != nil {
			t.Error(err)
		}
	})
}

// The description stays non-blocking all along, even if the file that is handed over is one that (*net.TCPListener).File made:
// its Fd makes the description blocking, for the predecessor too.
func TestNeverBlocking(t *testing.T) {
	ctx := testContext(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t).(*net.TCPListener)
	defer l.Close()
	stop, watched := make(chan struct{}), make(chan int)
	go func() {
		blocking := 0
		for {
			select {
			case <-stop:
				watched <- blocking
				return
			default:
				if !nonblock(t, l) {
					blocking++
				}
			}
		}
	}()
	for range 100 {
		f := must(l.File())(t)
		var s Set
		if err := s.Inherit(Socket{"web", KindListener, "tcp", l.Addr().String(), f}); err != nil {
			t.Fatal(err)
		}
		inherited := must(s.Listen(ctx, "web", "tcp", l.Addr().String()))(t)
		for _, sock := range must(s.Sockets())(t) {
			sock.File.Close()
		}
		inherited.Pause()
		exchangeOver(t, must(s.Listen(ctx, "other", "tcp", "127.0.0.1:0"))(t))
		inherited.Resume()
		s.Leave()
	}
	close(stop)
	if n := receive(t, watched); n > 0 {
		t.Errorf("the socket was seen blocking %d times", n)
	}
}

// Listen and CloseUnclaimed at the same time: the socket is inherited or bound anew, and belongs to one of the two in any case.
func TestListenAndCloseUnclaimed(t *testing.T) {
	ctx := testContext(t)
	a, _ := newSet(t)
	la := must(a.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
	leavesNoFD(t, func() {
		for range 100 {
			b := &Set{Logger: slog.New(slog.DiscardHandler)}
			handOverTo(t, a, b)
			names := make(chan []string)
			go func() { names <- b.CloseUnclaimed() }()
			lb := must(b.Listen(ctx, "web", "tcp", "127.0.0.1:0"))(t)
			closed := len(receive(t, names)) == 1
			if lb.Inherited() == closed || lb.Inherited() != (lb.Addr().String() == la.Addr().String()) {
				t.Errorf("inherited %v at %s, closed as unclaimed %v", lb.Inherited(), lb.Addr(), closed)
			}
			b.Close()
		}
	})
}

// A link-local address with its zone, which the kernel tells for TCP but not for MPTCP.
func TestLinkLocal(t *testing.T) {
	ip := linkLocal()
	if ip == "" {
		t.Skip("no link-local address here")
	}
	ctx := testContext(t)
	for _, mptcp := range []bool{false, true} {
		a, _ := newSet(t)
		a.ListenConfig.SetMultipathTCP(mptcp)
		la := must(a.Listen(ctx, "web", "tcp", net.JoinHostPort(ip, "0")))(t)
		pa := must(a.ListenPacket(ctx, "dns", "udp6", net.JoinHostPort(ip, "0")))(t)
		b, _ := handOver(t, a)
		if l := must(b.Listen(ctx, "web", "tcp6", net.JoinHostPort(ip, "0")))(t); !l.Inherited() || l.Addr().String() != la.Addr().String() {
			t.Errorf("mptcp %v: have inherited %v at %s, want %s", mptcp, l.Inherited(), l.Addr(), la.Addr())
		}
		if p := must(b.ListenPacket(ctx, "dns", "udp", net.JoinHostPort(ip, "0")))(t); !p.Inherited() || p.LocalAddr().String() != pa.LocalAddr().String() {
			t.Errorf("have inherited %v at %s, want %s", p.Inherited(), p.LocalAddr(), pa.LocalAddr())
		}
	}
}

// linkLocal is a link-local address of this host with its zone, or empty.
func linkLocal() string {
	interfaces, _ := net.Interfaces()
	for _, ifi := range interfaces {
		addrs, _ := ifi.Addrs()
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ifi.Flags&net.FlagUp != 0 && ip.IP.To4() == nil && ip.IP.IsLinkLocalUnicast() {
				return ip.IP.String() + "%" + ifi.Name
			}
		}
	}
	return ""
}
