//go:build unix

package listener

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// reading is each way to read a datagram.
var reading = []struct {
	name string
	udp  bool // UDP only
	read func(p *PacketConn, b []byte) (int, error)
}{
	{"ReadFrom", false, func(p *PacketConn, b []byte) (int, error) { n, _, err := p.ReadFrom(b); return n, err }},
	{"Read", false, func(p *PacketConn, b []byte) (int, error) { return p.Read(b) }},
	{"ReadFromUDPAddrPort", true, func(p *PacketConn, b []byte) (int, error) { n, _, err := p.ReadFromUDPAddrPort(b); return n, err }},
	{"ReadMsgUDP", true, func(p *PacketConn, b []byte) (int, error) { n, _, _, _, err := p.ReadMsgUDP(b, nil); return n, err }},
	{"SyscallConn", false, func(p *PacketConn, b []byte) (n int, err error) {
		raw, err := p.SyscallConn()
		if err != nil {
			return 0, err
		}
		var errno error
		err = raw.Read(func(fd uintptr) bool {
			n, _, errno = syscall.Recvfrom(int(fd), b, 0)
			return errno != syscall.EAGAIN
		})
		if err != nil {
			return 0, err
		}
		return n, errno
	}},
}

// eachReading runs f for every way to read on every kind of socket that has it.
func eachReading(t *testing.T, f func(t *testing.T, p place, read func(*PacketConn, []byte) (int, error))) {
	for _, network := range []string{"udp", "unixgram"} {
		for _, r := range reading {
			if r.udp && network != "udp" {
				continue
			}
			t.Run(network+" "+r.name, func(t *testing.T) {
				p := place{network, "127.0.0.1:0"}
				if network == "unixgram" {
					p.address = tempPath(t, "d")
				}
				f(t, p, r.read)
			})
		}
	}
}

// datagramResult is what a read came back with.
type datagramResult struct {
	text string
	err  error
}

func goRead(p *PacketConn, read func(*PacketConn, []byte) (int, error)) <-chan datagramResult {
	result := make(chan datagramResult, 1)
	go func() {
		b := make([]byte, 100)
		n, err := read(p, b)
		result <- datagramResult{string(b[:max(n, 0)]), err} // ReadMsgUDP and recvfrom(2) count -1 with an error
	}()
	return result
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// The predecessor pauses, the successor reads what comes, and back: nothing is lost, nobody reads in a pause.
func TestPacketPause(t *testing.T) {
	eachReading(t, func(t *testing.T, p place, read func(*PacketConn, []byte) (int, error)) {
		ctx := testContext(t)
		a, _ := newSet(t)
		pa := must(a.ListenPacket(ctx, "dns", p.network, p.address))(t)
		b, _ := handOver(t, a)
		pb := must(b.ListenPacket(ctx, "dns", p.network, p.address))(t)
		client := dial(t, pa.LocalAddr())

		inA := goRead(pa, read)
		pa.Pause()
		pa.Pause()
		send(t, client, "for b")
		if have := receive(t, goRead(pb, read)); have.text != "for b" {
			t.Errorf("have %q, %v", have.text, have.err)
		}
		b.Pause()
		send(t, client, "queued")
		inB := goRead(pb, read)
		pa.Resume()
		if have := receive(t, inA); have.text != "queued" {
			t.Errorf("have %q, %v", have.text, have.err)
		}
		// Answers can still be sent in a pause. (To the client's own address.)
		if _, err := pb.WriteTo([]byte("answer"), client.LocalAddr()); err != nil {
			t.Error(err)
		}
		if err := pb.Close(); err != nil {
			t.Error(err)
		}
		if have := receive(t, inB); !errors.Is(have.err, net.ErrClosed) {
			t.Errorf("closed in a pause: have %v, want %v", have.err, net.ErrClosed)
		}
		if !nonblock(t, pa) {
			t.Error("the socket became blocking")
		}
	})
}

// Deadlines do what they do on a *net.UDPConn, with pauses at every place where they could disturb.
func TestPacketDeadlines(t *testing.T) {
	const soon = 5 * time.Millisecond
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	tests := []struct {
		name   string
		before func(p *PacketConn) // before the read starts
		during func(p *PacketConn) // while it runs
		want   string              // "" is a timeout
	}{
		{"past", func(p *PacketConn) { p.SetReadDeadline(past) }, nil, ""},
		{"past, set for both", func(p *PacketConn) { p.SetDeadline(past) }, nil, ""},
		{"soon", func(p *PacketConn) { p.SetReadDeadline(in(soon)) }, nil, ""},
		{"set during the read", nil, func(p *PacketConn) { p.SetReadDeadline(past) }, ""},
		{"far", func(p *PacketConn) { p.SetReadDeadline(in(time.Hour)) }, func(p *PacketConn) { sendTo(p, "x") }, "x"},
		{"past, taken back", func(p *PacketConn) { p.SetReadDeadline(past); p.SetReadDeadline(time.Time{}) }, func(p *PacketConn) { sendTo(p, "x") }, "x"},

		{"past, then paused", func(p *PacketConn) { p.SetReadDeadline(past); p.Pause() }, nil, ""},
		{"paused, then past", func(p *PacketConn) { p.Pause(); p.SetReadDeadline(past) }, nil, ""},
		{"soon, then paused", func(p *PacketConn) { p.SetReadDeadline(in(soon)); p.Pause() }, nil, ""},
		{"paused, then soon", func(p *PacketConn) { p.Pause(); p.SetReadDeadline(in(soon)) }, nil, ""},
		{"paused, deadline during the read", func(p *PacketConn) { p.Pause() }, func(p *PacketConn) { p.SetReadDeadline(past) }, ""},
		{"paused, deadline comes nearer", func(p *PacketConn) { p.Pause(); p.SetReadDeadline(in(time.Hour)) }, func(p *PacketConn) { p.SetReadDeadline(in(soon)) }, ""},
		{"paused during the read", func(p *PacketConn) { p.SetReadDeadline(in(soon)) }, func(p *PacketConn) { p.Pause() }, ""},
		{"paused, resumed, past", func(p *PacketConn) { p.SetReadDeadline(past); p.Pause(); p.Resume() }, nil, ""},
		{"past set in the pause, resumed", func(p *PacketConn) { p.Pause(); p.SetReadDeadline(past); p.Resume() }, nil, ""},
		{"soon set in the pause, resumed", func(p *PacketConn) { p.Pause(); p.SetReadDeadline(in(soon)); p.Resume() }, nil, ""},

		{"paused and resumed during the read", nil, func(p *PacketConn) { p.Pause(); p.Resume(); sendTo(p, "x") }, "x"},
		{"paused and resumed, far", func(p *PacketConn) { p.SetReadDeadline(in(time.Hour)) }, func(p *PacketConn) { p.Pause(); sendTo(p, "x"); p.Resume() }, "x"},
		{"taken back in the pause", func(p *PacketConn) { p.SetReadDeadline(past); p.Pause(); p.SetReadDeadline(time.Time{}) },
			func(p *PacketConn) { sendTo(p, "x"); p.Resume() }, "x"},
		{"twice paused", func(p *PacketConn) { p.Pause() }, func(p *PacketConn) { p.set.Pause(); sendTo(p, "x"); p.Resume(); p.set.Resume() }, "x"},
	}
	eachReading(t, func(t *testing.T, p place, read func(*PacketConn, []byte) (int, error)) {
		for _, tt := range tests {
			s, _ := newSet(t)
			conn := must(s.ListenPacket(testContext(t), "dns", p.network, p.address))(t)
			if tt.before != nil {
				tt.before(conn)
			}
			result := goRead(conn, read)
			if tt.during != nil {
				tt.during(conn)
			}
			have := receive(t, result)
			if tt.want != "" {
				if have.text != tt.want || have.err != nil {
					t.Errorf("%s: have %q, %v, want %q", tt.name, have.text, have.err, tt.want)
				}
			} else if ne, ok := have.err.(net.Error); !ok || !ne.Timeout() || !errors.Is(have.err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: have %q, %v, want a timeout", tt.name, have.text, have.err)
			}
			// It works on.
			conn.Resume()
			conn.SetDeadline(time.Time{})
			sendTo(conn, "after")
			if have := receive(t, goRead(conn, read)); have.text != "after" {
				t.Errorf("%s: afterwards: have %q, %v", tt.name, have.text, have.err)
			}
			conn.Close()
			if err := conn.SetReadDeadline(past); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: deadline after Close: have %v, want %v", tt.name, err, net.ErrClosed)
			}
		}
	})
}

// sendTo sends a datagram to p from itself.
func sendTo(p *PacketConn, text string) {
	if _, err := p.WriteTo([]byte(text), p.LocalAddr()); err != nil {
		panic(err)
	}
}

// A write deadline is not the pause's business.
func TestPacketWriteDeadline(t *testing.T) {
	s, _ := newSet(t)
	p := must(s.ListenPacket(testContext(t), "dns", "udp", "127.0.0.1:0"))(t)
	p.SetWriteDeadline(past)
	p.Pause()
	p.Resume()
	if _, err := p.WriteTo([]byte("x"), p.LocalAddr()); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("have %v, want a timeout", err)
	}
	if err := p.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	sendTo(p, "x")
}

func TestPacketUDPMethods(t *testing.T) {
	s, _ := newSet(t)
	ctx := testContext(t)
	p := must(s.ListenPacket(ctx, "dns", "udp", "127.0.0.1:0"))(t)
	addr := p.LocalAddr().(*net.UDPAddr)
	b := make([]byte, 10)
	if _, err := p.WriteToUDPAddrPort([]byte("one"), addr.AddrPort()); err != nil {
		t.Error(err)
	}
	if n, from, err := p.ReadFromUDPAddrPort(b); err != nil || string(b[:n]) != "one" || from != addr.AddrPort() {
		t.Errorf("have %q from %v, %v", b[:n], from, err)
	}
	if _, _, err := p.WriteMsgUDP([]byte("two"), nil, addr); err != nil {
		t.Error(err)
	}
	if n, _, _, from, err := p.ReadMsgUDP(b, nil); err != nil || string(b[:n]) != "two" || from.Port != addr.Port {
		t.Errorf("have %q from %v, %v", b[:n], from, err)
	}
	if p.RemoteAddr() != nil {
		t.Errorf("have peer %v, want none", p.RemoteAddr())
	}
	if _, err := p.Write([]byte("x")); err == nil {
		t.Error("Write without a peer: no error")
	}

	u := must(s.ListenPacket(ctx, "unix", "unixgram", tempPath(t, "d")))(t)
	for name, f := range map[string]func() error{
		"ReadFromUDPAddrPort": func() error { _, _, err := u.ReadFromUDPAddrPort(b); return err },
		"ReadMsgUDP":          func() error { _, _, _, _, err := u.ReadMsgUDP(b, nil); return err },
		"WriteToUDPAddrPort":  func() error { _, err := u.WriteToUDPAddrPort(b, addr.AddrPort()); return err },
		"WriteMsgUDP":         func() error { _, _, err := u.WriteMsgUDP(b, nil, addr); return err },
	} {
		if err := f(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s on a Unix socket: have %v, want %v", name, err, errors.ErrUnsupported)
		}
	}
}

// Two Sets take turns on a socket into which a client sends numbers. Each number is read once.
func TestPacketPauseUnderLoad(t *testing.T) {
	const cycles = 200
	ctx := testContext(t)
	a, _ := newSet(t)
	path := tempPath(t, "d") // a Unix socket makes the sender wait where UDP would drop
	pa := must(a.ListenPacket(ctx, "dns", "unixgram", path))(t)
	b, _ := handOver(t, a)
	pb := must(b.ListenPacket(ctx, "dns", "unixgram", path))(t)
	b.Pause()

	var readers sync.WaitGroup
	var mu sync.Mutex // guards seen
	more := sync.NewCond(&mu)
	seen := make(map[string]int)
	var counts [2]atomic.Int64
	for i, p := range []*PacketConn{pa, pb} {
		for range 2 {
			readers.Go(func() {
				buf := make([]byte, 100)
				for {
					n, _, err := p.ReadFrom(buf)
					if err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					seen[string(buf[:n])]++
					mu.Unlock()
					more.Broadcast()
					counts[i].Add(1)
				}
			})
		}
	}
	// await waits until n different numbers were read.
	await := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		for len(seen) < n {
			more.Wait()
		}
	}
	total := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(seen)
	}
	client := dial(t, pa.LocalAddr())
	stop, sent := make(chan struct{}), make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				sent <- n
				return
			default:
			}
			if _, err := fmt.Fprintf(client, "%d", n); err != nil {
				t.Error(err)
				sent <- n
				return
			}
		}
	}()
	sets := [2]*Set{a, b}
	for i := range cycles {
		from, to := i%2, (i+1)%2
		sets[from].Pause()
		sets[to].Resume()
		await(total() + 10)
	}
	close(stop)
	n := receive(t, sent)
	await(n)
	a.Leave()
	b.Close()
	readers.Wait()
	for text, times := range seen {
		if times != 1 {
			t.Errorf("%s was read %d times", text, times)
		}
	}
	if len(seen) != n || counts[0].Load() == 0 || counts[1].Load() == 0 {
		t.Errorf("sent %d, read %d, by each side %d and %d", n, len(seen), counts[0].Load(), counts[1].Load())
	}
}

// Everything at once, for the race detector.
func TestPacketRaces(t *testing.T) {
	for range 50 {
		s, _ := newSet(t)
		p := must(s.ListenPacket(testContext(t), "dns", "udp", "127.0.0.1:0"))(t)
		var group sync.WaitGroup
		for range 2 {
			group.Go(func() {
				b := make([]byte, 10)
				for {
					if _, _, err := p.ReadFrom(b); errors.Is(err, net.ErrClosed) {
						return
					}
				}
			})
		}
		var steps sync.WaitGroup
		for _, f := range []func(){
			func() { sendTo(p, "x") },
			func() { p.Pause(); p.Resume() },
			func() { s.Pause(); s.Resume() },
			func() { p.SetReadDeadline(past); p.SetReadDeadline(time.Time{}) },
			func() { p.SetReadDeadline(time.Now().Add(time.Microsecond)); p.SetReadDeadline(time.Time{}) },
		} {
			steps.Go(f)
		}
		steps.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		group.Wait()
	}
}
