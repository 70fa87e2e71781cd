//go:build unix

package listener

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFits(t *testing.T) {
	tcp := func(addr string, only6 bool) bound {
		return bound{network: "tcp", inet: netip.MustParseAddrPort(addr), only6: only6}
	}
	udp := func(addr string) bound { return bound{network: "udp", inet: netip.MustParseAddrPort(addr)} }
	unix := func(network, path string) bound { return bound{network: network, path: path} }
	dir := t.TempDir()
	t.Chdir(dir)
	tests := []struct {
		network, address string
		bound            bound
		want             bool
	}{
		{"tcp", "127.0.0.1:80", tcp("127.0.0.1:80", false), true},
		{"tcp", "127.0.0.1:81", tcp("127.0.0.1:80", false), false},
		{"tcp", "127.0.0.2:80", tcp("127.0.0.1:80", false), false},
		{"tcp", "127.0.0.1:0", tcp("127.0.0.1:80", false), true},
		{"tcp", "127.0.0.1:", tcp("127.0.0.1:80", false), true},
		{"tcp", "127.0.0.1:http", tcp("127.0.0.1:80", false), true},
		{"tcp4", "127.0.0.1:80", tcp("127.0.0.1:80", false), true},
		{"tcp6", "127.0.0.1:80", tcp("127.0.0.1:80", false), false},
		{"tcp", "localhost:80", tcp("127.0.0.1:80", false), true},
		{"tcp4", "localhost:80", tcp("127.0.0.1:80", false), true},
		{"tcp", "localhost:80", tcp("127.0.0.2:80", false), false},
		{"tcp", "[::1]:80", tcp("[::1]:80", false), true},
		{"tcp6", "[::1]:80", tcp("[::1]:80", true), true},
		{"tcp4", "[::1]:80", tcp("[::1]:80", false), false},
		{"tcp", "127.0.0.1:80", tcp("[::ffff:127.0.0.1]:80", false), true},
		{"tcp4", "127.0.0.1:80", tcp("[::ffff:127.0.0.1]:80", false), false},
		// unspecified
		{"tcp", ":80", tcp("[::]:80", false), true},
		{"tcp", "", tcp("[::]:80", false), true},
		{"tcp", "0.0.0.0:80", tcp("[::]:80", false), true},
		{"tcp", "[::]:80", tcp("[::]:80", false), true},
		{"tcp", ":80", tcp("0.0.0.0:80", false), true},
		{"tcp", ":80", tcp("[::]:80", true), false},
		{"tcp6", ":80", tcp("[::]:80", true), true},
		{"tcp6", ":80", tcp("[::]:80", false), false},
		{"tcp4", ":80", tcp("0.0.0.0:80", false), true},
		{"tcp4", ":80", tcp("[::]:80", false), false},
		{"tcp", ":80", tcp("127.0.0.1:80", false), false},
		{"tcp", "127.0.0.1:80", tcp("[::]:80", false), false},
		// kinds and protocols
		{"udp", "127.0.0.1:80", udp("127.0.0.1:80"), true},
		{"udp", "224.0.0.9:80", udp("0.0.0.0:80"), true},
		{"udp", "224.0.0.9:80", udp("[::]:80"), false},
		{"udp", "127.0.0.1:80", tcp("127.0.0.1:80", false), false},
		{"tcp", "127.0.0.1:80", unix("unix", "/s"), false},
		// names
		{"unix", "/run/s", unix("unix", "/run/s"), true},
		{"unix", "/run/../run//s", unix("unix", "/run/s"), true},
		{"unix", "s", unix("unix", dir+"/s"), true},
		{"unix", "/run/t", unix("unix", "/run/s"), false},
		{"unixpacket", "/run/s", unix("unix", "/run/s"), false},
		{"unixgram", "/run/s", unix("unixgram", "/run/s"), true},
		{"unix", "@s", unix("unix", "@s"), true},
		{"unix", "\x00s", unix("unix", "@s"), true},
		{"unix", "@s", unix("unix", "@t"), false},
		{"unix", "@s", unix("unix", "/s"), false},
		{"unix", "", unix("unix", "@00001"), true},
		{"unix", "", unix("unix", "/s"), false},
	}
	for _, tt := range tests {
		if strings.HasPrefix(tt.bound.path, "@") && isPath("@s") {
			continue // no abstract names here
		}
		kind := KindListener
		if tt.network[0] == 'u' && (tt.network[1] == 'd' || tt.network == "unixgram") {
			kind = KindPacket
		}
		r, err := request{kind, "n", tt.network, tt.address}.absolute()
		if err != nil {
			t.Fatal(err)
		}
		have, err := r.fits(context.Background(), &heirloom{Socket: Socket{Kind: kind}, bound: tt.bound})
		if err != nil || have != tt.want {
			t.Errorf("%s %q fits %+v: have %v, %v, want %v", tt.network, tt.address, tt.bound, have, err, tt.want)
		}
	}
}

// A request that makes no sense is an error even if something of its name was inherited, and takes nothing.
func TestFitsErrors(t *testing.T) {
	a, _ := newSet(t)
	must(a.Listen(testContext(t), "web", "tcp", "127.0.0.1:0"))(t)
	b, _ := handOver(t, a)
	for _, address := range []string{"127.0.0.1", "127.0.0.1:none-such", "127.0.0.1:70000", "no host:0"} {
		if _, err := b.Listen(testContext(t), "web", "tcp", address); err == nil {
			t.Errorf("%s: no error", address)
		}
	}
	if l := must(b.Listen(testContext(t), "web", "tcp", "127.0.0.1:0"))(t); !l.Inherited() {
		t.Error("not inherited")
	}
}

// What comes from the other process is hostile: each is refused, and its descriptor closed.
func TestInheritHostile(t *testing.T) {
	ctx := testContext(t)
	a, _ := newSet(t)
	must(a.Listen(ctx, "tcp", "tcp", "127.0.0.1:0"))(t)
	must(a.Listen(ctx, "unix", "unix", tempPath(t, "s")))(t)
	must(a.ListenPacket(ctx, "udp", "udp", "127.0.0.1:0"))(t)
	good := func(name string) Socket { // a fresh copy
		var found Socket
		for _, s := range must(a.Sockets())(t) {
			if s.Name == name {
				found = s
			} else {
				s.File.Close()
			}
		}
		return found
	}
	raw := func(domain, typ int) *os.File {
		return os.NewFile(uintptr(must(unix.Socket(domain, typ, 0))(t)), "raw")
	}
	change := func(s Socket, f func(*Socket)) Socket { f(&s); return s }
	tests := []struct {
		name string
		sock func() Socket
		want error
	}{
		{"nil file", func() Socket { return Socket{Name: "x", Kind: KindListener, Network: "tcp", Address: "127.0.0.1:1"} }, ErrIdentity},
		{"closed file", func() Socket { s := good("tcp"); s.File.Close(); return s }, ErrIdentity},
		{"closed file as file", func() Socket {
			s := good("tcp")
			s.File.Close()
			return Socket{Name: "x", Kind: KindFile, File: s.File}
		}, ErrIdentity},
		{"pipe", func() Socket {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			return change(good("tcp"), func(s *Socket) { s.File.Close(); s.File = r })
		}, ErrIdentity},
		{"plain file", func() Socket {
			f := must(os.Open(os.DevNull))(t)
			return Socket{"x", KindPacket, "udp", "127.0.0.1:1", f}
		}, ErrIdentity},
		{"unbound tcp", func() Socket {
			return Socket{"x", KindListener, "tcp", "0.0.0.0:0", raw(unix.AF_INET, unix.SOCK_STREAM)}
		}, ErrIdentity},
		{"unbound unix", func() Socket {
			return Socket{"x", KindListener, "unix", "", raw(unix.AF_UNIX, unix.SOCK_STREAM)}
		}, ErrIdentity},
		{"unbound unixgram", func() Socket {
			return Socket{"x", KindPacket, "unixgram", "", raw(unix.AF_UNIX, unix.SOCK_DGRAM)}
		}, ErrIdentity},
		{"another family", func() Socket {
			return Socket{"x", KindPacket, "udp", "127.0.0.1:1", raw(unix.AF_ROUTE, unix.SOCK_RAW)}
		}, ErrIdentity},
		{"connection", func() Socket {
			l := must(net.Listen("unix", tempPath(t, "c")))(t)
			defer l.Close()
			c := must(net.Dial("unix", l.Addr().String()))(t)
			defer c.Close()
			f := must(dup(c.(*net.UnixConn), "c"))(t)
			return Socket{"x", KindListener, "unix", l.Addr().String(), f}
		}, ErrIdentity},
		{"stream as packet", func() Socket { return change(good("tcp"), func(s *Socket) { s.Kind, s.Network = KindPacket, "udp" }) }, ErrIdentity},
		{"packet as stream", func() Socket { return change(good("udp"), func(s *Socket) { s.Kind, s.Network = KindListener, "tcp" }) }, ErrIdentity},
		{"stream as seqpacket", func() Socket { return change(good("unix"), func(s *Socket) { s.Network = "unixpacket" }) }, ErrIdentity},
		{"kind and network differ", func() Socket { return change(good("tcp"), func(s *Socket) { s.Network = "udp" }) }, ErrIdentity},
		{"ipv4 as tcp6", func() Socket { return change(good("tcp"), func(s *Socket) { s.Network = "tcp6" }) }, ErrIdentity},
		{"unix as tcp", func() Socket { return change(good("unix"), func(s *Socket) { s.Network = "tcp" }) }, ErrIdentity},
		{"no network", func() Socket { return change(good("tcp"), func(s *Socket) { s.Network = "" }) }, ErrNetwork},
		{"unknown network", func() Socket { return change(good("tcp"), func(s *Socket) { s.Network = "sctp" }) }, ErrNetwork},
		{"unknown kind", func() Socket {
			return change(good("tcp"), func(s *Socket) { s.Kind = Kind(strings.Repeat("k", 1<<20)) })
		}, ErrIdentity},
		{"another port", func() Socket { return change(good("tcp"), func(s *Socket) { s.Address = "127.0.0.1:1" }) }, ErrIdentity},
		{"another path", func() Socket { return change(good("unix"), func(s *Socket) { s.Address = "/run/other" }) }, ErrIdentity},
		{"no address", func() Socket { return change(good("tcp"), func(s *Socket) { s.Address = "" }) }, ErrIdentity},
		{"huge address", func() Socket { return change(good("tcp"), func(s *Socket) { s.Address = strings.Repeat("9", 1<<20) }) }, ErrIdentity},
		{"no name", func() Socket { return change(good("tcp"), func(s *Socket) { s.Name = "" }) }, ErrIdentity},
		{"huge name", func() Socket { return change(good("tcp"), func(s *Socket) { s.Name = strings.Repeat("\n", 1<<20) }) }, ErrIdentity},
		{"name of something open", func() Socket { return change(good("tcp"), func(s *Socket) { s.Name = "open" }) }, ErrNameTaken},
		{"name of something inherited", func() Socket { return change(good("tcp"), func(s *Socket) { s.Name = "unclaimed" }) }, ErrNameTaken},
	}
	b, _ := newSet(t)
	must(b.Listen(ctx, "open", "tcp", "127.0.0.1:0"))(t)
	if err := b.Inherit(change(good("tcp"), func(s *Socket) { s.Name = "unclaimed" })); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		leavesNoFD(t, func() {
			err := b.Inherit(tt.sock())
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: have %v, want %v", tt.name, err, tt.want)
			}
			if err != nil && (len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n")) {
				t.Errorf("%s: the error is %d bytes long, or has more than one line", tt.name, len(err.Error()))
			}
		})
	}
	closed := &Set{}
	closed.Close()
	leavesNoFD(t, func() {
		if err := closed.Inherit(good("tcp")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed set: have %v, want %v", err, net.ErrClosed)
		}
	})
	if !nonblock(t, must(b.Listen(ctx, "unclaimed", "tcp", "127.0.0.1:0"))(t)) {
		t.Error("the socket became blocking")
	}
}

// A descriptor that came through exec has no close-on-exec flag, and one made by another program may be blocking.
func TestInheritRaw(t *testing.T) {
	fd := must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0))(t)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 5)); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "raw")
	address := must(inspect(f))(t).address()
	s, _ := newSet(t)
	if err := s.Inherit(Socket{"web", KindListener, "tcp", address, f}); err != nil {
		t.Fatal(err)
	}
	if flags := must(unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0))(t); flags&unix.FD_CLOEXEC == 0 {
		t.Error("not close-on-exec")
	}
	l := must(s.Listen(testContext(t), "web", "tcp", address))(t)
	if !nonblock(t, l) {
		t.Error("blocking")
	}
	exchangeOver(t, l)
}
