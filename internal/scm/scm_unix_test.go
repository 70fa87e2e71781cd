//go:build linux || darwin || freebsd

package scm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var background = context.Background()

func TestRoundTrip(t *testing.T) {
	for _, count := range []int{0, 1, 2, MaxDescriptors} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			noLeak(t)
			a, b := connected(t)
			fds := files(t, count)
			payload := []byte("0123456789abcdef")
			if err := Send(background, a, payload, fds); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, len(payload))
			d, err := Receive(background, b, buf, count)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if !bytes.Equal(buf, payload) {
				t.Errorf("have %q, want %q", buf, payload)
			}
			if d.Len() != count {
				t.Fatalf("have %d descriptors, want %d", d.Len(), count)
			}
			for i, sent := range fds {
				fd := d.Take(i)
				defer unix.Close(fd)
				if have, want := identity(t, fd), identity(t, sent); have != want || fd == sent {
					t.Errorf("descriptor %d: have %v (fd %d), want %v in another fd than %d", i, have, fd, want, sent)
				}
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("descriptor %d: flags %#x, error %v, want FD_CLOEXEC", i, flags, err)
				}
			}
		})
	}
}

func TestDescriptorsOwnership(t *testing.T) {
	noLeak(t)
	a, b := connected(t)
	must(t, Send(background, a, []byte("x"), files(t, 3)))
	d, err := Receive(background, b, make([]byte, 1), 3)
	if err != nil {
		t.Fatal(err)
	}
	taken := d.Take(1)
	if taken < 0 {
		t.Fatalf("have %d, want a descriptor", taken)
	}
	for _, i := range []int{1, -1, 3} {
		if fd := d.Take(i); fd != -1 {
			t.Errorf("Take(%d): have %d, want -1", i, fd)
		}
	}
	must(t, d.Close())
	must(t, d.Close())
	if fd := d.Take(0); fd != -1 || d.Len() != 3 {
		t.Errorf("closed: have descriptor %d of %d, want -1 of 3", fd, d.Len())
	}
	must(t, unix.Close(taken)) // still ours

	var none *Descriptors
	if fd := none.Take(0); fd != -1 || none.Len() != 0 || none.Close() != nil {
		t.Error("nil Descriptors is not empty")
	}
}

func TestArguments(t *testing.T) {
	noLeak(t)
	a, b := connected(t)
	if err := Send(background, a, nil, nil); err == nil {
		t.Error("empty payload: want an error")
	}
	if _, err := Receive(background, b, nil, 0); err == nil {
		t.Error("empty buffer: want an error")
	}
	if err := Send(background, a, []byte("x"), make([]int, MaxDescriptors+1)); !errors.Is(err, ErrDescriptorCount) {
		t.Errorf("254 to send: have %v, want ErrDescriptorCount", err)
	}
	for _, want := range []int{-1, MaxDescriptors + 1} {
		if _, err := Receive(background, b, make([]byte, 1), want); !errors.Is(err, ErrDescriptorCount) {
			t.Errorf("%d to receive: have %v, want ErrDescriptorCount", want, err)
		}
	}
	if err := Send(background, a, []byte("x"), []int{-1}); !errors.Is(err, syscall.EBADF) {
		t.Errorf("bad descriptor: have %v, want EBADF", err)
	}
	must(t, exchange(a, b)) // none of this has sent anything
}

func TestDescriptorCount(t *testing.T) {
	type message struct {
		payload string
		fds     int
	}
	for name, test := range map[string]struct {
		sent []message
		want int
	}{
		"unannounced":            {[]message{{"abcd", 1}}, 0},
		"none":                   {[]message{{"abcd", 0}}, 1},
		"too few":                {[]message{{"abcd", 2}}, 3},
		"too many":               {[]message{{"abcd", 3}}, 2},
		"far too many":           {[]message{{"abcd", MaxDescriptors}}, 1},
		"later byte":             {[]message{{"a", 0}, {"bcd", 2}}, 2},
		"later byte unannounced": {[]message{{"ab", 0}, {"cd", 2}}, 0},
		"later byte in addition": {[]message{{"ab", 2}, {"cd", 1}}, 2},
		"last byte":              {[]message{{"abc", 2}, {"d", MaxDescriptors}}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			a, b := connected(t)
			for _, m := range test.sent {
				must(t, Send(background, a, []byte(m.payload), files(t, m.fds)))
			}
			d, err := Receive(background, b, make([]byte, 4), test.want)
			if d != nil || !errors.Is(err, ErrDescriptorCount) {
				t.Errorf("have %v, %v, want ErrDescriptorCount", d, err)
			}
		})
	}
}

// A message must not get the descriptors of the next one, also if both are in the socket already.
func TestMessagesStayApart(t *testing.T) {
	noLeak(t)
	a, b := connected(t)
	counts := []int{2, 0, 1, 0, 0, 3, 3}
	for _, count := range counts {
		must(t, Send(background, a, []byte("abc"), files(t, count)))
	}
	for i, count := range counts {
		d, err := Receive(background, b, make([]byte, 3), count)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		must(t, d.Close())
	}
}

func TestPeerClosed(t *testing.T) {
	for name, test := range map[string]struct {
		sent string
		fds  int
		want error
	}{
		"before the first byte": {"", 0, io.EOF},
		"in the middle":         {"ab", 2, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			a, b := connected(t)
			if test.sent != "" {
				must(t, Send(background, a, []byte(test.sent), files(t, test.fds)))
			}
			must(t, a.Close())
			d, err := Receive(background, b, make([]byte, 4), 2)
			if d != nil || !errors.Is(err, test.want) {
				t.Errorf("have %v, %v, want %v", d, err, test.want)
			}
			if errors.Is(test.want, io.EOF) != (err == io.EOF) {
				t.Errorf("io.EOF is for the clean end and unwrapped, have %v", err)
			}
		})
	}
	t.Run("send", func(t *testing.T) {
		noLeak(t)
		a, b := connected(t)
		must(t, b.Close())
		if err := Send(background, a, []byte("x"), files(t, 1)); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("have %v, want EPIPE", err)
		}
	})
	t.Run("send waiting", func(t *testing.T) {
		noLeak(t)
		a, b := connected(t)
		fill(t, a)
		defer closeSoon(b)()
		// ECONNRESET, because b had unread data, if b closes in the middle of the system call.
		if err := Send(background, a, []byte("x"), nil); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("have %v, want EPIPE or ECONNRESET", err)
		}
	})
	t.Run("closed here", func(t *testing.T) {
		noLeak(t)
		a, b := connected(t)
		defer closeSoon(a)()
		if _, err := Receive(background, a, make([]byte, 1), 0); !errors.Is(err, net.ErrClosed) {
			t.Errorf("receive waiting: have %v, want net.ErrClosed", err)
		}
		if err := Send(background, a, []byte("x"), nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("send: have %v, want net.ErrClosed", err)
		}
		must(t, b.Close())
	})
}

// Every way a context can end, for a Send that waits on a full buffer and a Receive that waits on an empty one, also
// on a socket that somebody made blocking. The connection has to serve the next call.
func TestContext(t *testing.T) {
	cause := errors.New("the cause")
	ends := map[string]struct {
		ctx  func() (context.Context, context.CancelFunc)
		want []error
	}{
		"deadline": {func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(background, 10*time.Millisecond)
		}, []error{context.DeadlineExceeded}},
		"cancel": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(background)
			time.AfterFunc(10*time.Millisecond, cancel)
			return ctx, cancel
		}, []error{context.Canceled}},
		"cause": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(background)
			time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
			return ctx, func() { cancel(nil) }
		}, []error{context.Canceled, cause}},
		"before": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(background)
			cancel()
			return ctx, cancel
		}, []error{context.Canceled}},
	}
	for name, end := range ends {
		for _, blocking := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/blocking=%v", name, blocking), func(t *testing.T) {
				noLeak(t)
				a, b := connected(t)
				if blocking {
					setBlocking(t, a)
					setBlocking(t, b)
				}
				check := func(err error) {
					t.Helper()
					for _, want := range end.want {
						if !errors.Is(err, want) {
							t.Errorf("have %v, want %v", err, want)
						}
					}
				}
				ctx, cancel := end.ctx()
				defer cancel()
				d, err := Receive(ctx, b, make([]byte, 4), 1)
				check(err)
				if d != nil {
					t.Error("want no descriptors")
				}
				must(t, exchange(a, b))

				filled := fill(t, a)
				ctx, cancel = end.ctx()
				defer cancel()
				check(Send(ctx, a, []byte("x"), files(t, 1)))
				if _, err := Receive(background, b, make([]byte, filled), 0); err != nil {
					t.Fatal(err)
				}
				must(t, exchange(a, b))
				must(t, exchange(b, a))
			})
		}
	}
}

// A context that is done already moves nothing, though there are room and data.
func TestContextDoneBefore(t *testing.T) {
	noLeak(t)
	a, b := connected(t)
	ctx, cancel := context.WithCancel(background)
	cancel()
	must(t, Send(background, a, []byte("x"), nil))
	for range 100 {
		if err := Send(ctx, a, []byte("y"), nil); !errors.Is(err, context.Canceled) {
			t.Fatalf("send: have %v, want context.Canceled", err)
		}
		if _, err := Receive(ctx, b, make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
			t.Fatalf("receive: have %v, want context.Canceled", err)
		}
	}
	buf := make([]byte, 1)
	if _, err := Receive(background, b, buf, 0); err != nil || buf[0] != 'x' {
		t.Errorf("have %q, %v, want x", buf, err)
	}
	must(t, exchange(a, b))
}

// A deadline of the caller is respected, and survives calls that ctx did not end.
func TestCallersDeadline(t *testing.T) {
	noLeak(t)
	a, b := connected(t)
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	must(t, Send(background, a, []byte("x"), nil))
	must(t, b.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	for _, want := range []error{nil, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded} {
		if _, err := Receive(ctx, b, make([]byte, 1), 0); !errors.Is(err, want) {
			t.Errorf("have %v, want %v", err, want)
		}
	}
}

// A context that ends at the very moment the call does must not poison the next call.
func TestCancelRace(t *testing.T) {
	noLeak(t)
	a, b := connected(t)
	fds := files(t, 1)
	const rounds = 1000

	// attempt starts call and ends its context while another goroutine lets it succeed; a canceled call is repeated.
	canceled := 0
	attempt := func(call func(context.Context) error, succeed func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(background)
		start := make(chan struct{})
		var others sync.WaitGroup
		others.Go(func() { <-start; cancel() })
		others.Go(func() { <-start; succeed() })
		close(start)
		err := call(ctx)
		others.Wait()
		if errors.Is(err, context.Canceled) {
			canceled++
			err = call(background)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	intact := func() {
		t.Helper()
		must(t, exchange(a, b))
		must(t, exchange(b, a))
	}
	send := func(ctx context.Context) error { return Send(ctx, a, []byte("x"), fds) }
	receive := func(ctx context.Context) error {
		d, err := Receive(ctx, b, make([]byte, 1), 1)
		return errors.Join(err, d.Close())
	}

	for range rounds {
		attempt(receive, func() {
			if err := send(background); err != nil {
				t.Error(err)
			}
		})
		intact()
	}
	t.Logf("%d of %d Receives were canceled", canceled, rounds)
	canceled = 0
	must(t, a.SetWriteBuffer(4096)) // quickly filled
	for range rounds {
		filled := fill(t, a)
		attempt(send, func() {
			if _, err := Receive(background, b, make([]byte, filled), 0); err != nil {
				t.Error(err)
			}
		})
		must(t, receive(background))
		intact()
	}
	t.Logf("%d of %d Sends were canceled", canceled, rounds)
}

// The same race slowed down: the deadline of a context that is done is still being set when the call is over.
func TestCancelLate(t *testing.T) {
	a, _ := connected(t)
	ctx, cancel := context.WithCancel(background)
	setting, set, cleared := make(chan bool), make(chan bool), make(chan bool)
	_, release, err := begin(ctx, a, func(deadline time.Time) error {
		if deadline.IsZero() {
			close(cleared)
		} else {
			close(setting)
			<-set
		}
		return nil
	})
	must(t, err)
	cancel()
	<-setting
	go release()
	select {
	case <-cleared:
		t.Error("the deadline was cleared first and set afterwards")
	case <-time.After(20 * time.Millisecond): // a release that does not wait would be done by now
	}
	close(set)
	<-cleared
}

func TestShortWrites(t *testing.T) {
	noLeak(t)
	a, b := connected(t)
	payload := make([]byte, 4<<20)
	for i := range payload {
		payload[i] = byte(rand.Uint32())
	}
	var sent sync.WaitGroup
	defer sent.Wait()
	sent.Go(func() {
		if err := Send(background, a, payload, files(t, 3)); err != nil {
			t.Errorf("send: %v", err)
		}
	})
	buf := make([]byte, len(payload))
	d, err := Receive(background, b, buf, 3)
	if err != nil {
		t.Fatal(err)
	}
	must(t, d.Close())
	if !bytes.Equal(buf, payload) {
		t.Error("the payload changed on its way")
	}
}

// One Send and one Receive share each of the two connections; contexts that end on one side leave the other alone.
func TestBothDirectionsAtOnce(t *testing.T) {
	noLeak(t)
	a, b := connected(t)
	fds := files(t, 4)
	const messages = 200
	var done sync.WaitGroup
	for _, conn := range []*net.UnixConn{a, b} {
		done.Go(func() {
			for i := range messages {
				if err := Send(background, conn, []byte{byte(i)}, fds[:i%4]); err != nil {
					t.Errorf("send: %v", err)
					return
				}
			}
		})
		done.Go(func() {
			buf := make([]byte, 1)
			for i := 0; i < messages; {
				ctx, cancel := context.WithTimeout(background, 50*time.Microsecond)
				d, err := Receive(ctx, conn, buf, i%4)
				cancel()
				switch {
				case errors.Is(err, context.DeadlineExceeded):
					continue
				case err != nil || buf[0] != byte(i) || d.Close() != nil:
					t.Errorf("message %d: have %v, %v", i, buf, err)
					return
				}
				i++
			}
		})
	}
	done.Wait()
}

func TestPair(t *testing.T) {
	noLeak(t)
	local, remote, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(remote.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("remote: flags %#x, error %v, want FD_CLOEXEC", flags, err)
	}
	must(t, remote.Close())
	if _, err := Receive(background, local, make([]byte, 1), 0); err != io.EOF {
		t.Errorf("have %v, want io.EOF", err)
	}
	must(t, local.Close())
}

// connected is a pair of connections, closed at the end of the test.
func connected(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	a, remote, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	conn, err := net.FileConn(remote)
	if err != nil {
		t.Fatal(err)
	}
	b = conn.(*net.UnixConn)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// closeSoon closes conn from another goroutine, which wait waits for.
func closeSoon(conn *net.UnixConn) (wait func()) {
	closed := make(chan bool)
	time.AfterFunc(10*time.Millisecond, func() {
		defer close(closed)
		conn.Close()
	})
	return func() { <-closed }
}

// exchange sends a byte with a descriptor from one to the other.
func exchange(from, to *net.UnixConn) error {
	if err := Send(background, from, []byte("?"), []int{0}); err != nil {
		return err
	}
	d, err := Receive(background, to, make([]byte, 1), 1)
	return errors.Join(err, d.Close())
}

// files opens as many different files, closed at the end of the test.
func files(t testing.TB, count int) (fds []int) {
	t.Helper()
	dir := t.TempDir()
	for i := range count {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		fds = append(fds, int(f.Fd()))
	}
	return fds
}

// identity is the device and the inode of an open file.
func identity(t testing.TB, fd int) string {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		t.Errorf("fstat %d: %v", fd, err)
	}
	return fmt.Sprint(stat.Dev, "/", stat.Ino)
}

// fill writes to conn until it would block, and returns how many bytes it took.
func fill(t testing.TB, conn *net.UnixConn) (total int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{64 << 10, 1} {
		for p := make([]byte, size); err == nil; {
			must(t, raw.Control(func(fd uintptr) {
				var n int
				if n, err = unix.SendmsgN(int(fd), p, nil, nil, sendFlags); err == nil {
					total += n
				}
			}))
		}
		if err != unix.EAGAIN {
			t.Fatal(err)
		}
		err = nil
	}
	return total
}

func setBlocking(t testing.TB, conn *net.UnixConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	must(t, raw.Control(func(fd uintptr) { must(t, unix.SetNonblock(int(fd), false)) }))
}

// noLeak has the test fail if it leaves descriptors open. It has to come first, so that it looks last.
func noLeak(t testing.TB) {
	t.Helper()
	before := openDescriptors()
	t.Cleanup(func() {
		if after := openDescriptors(); after != before {
			t.Errorf("have %d open descriptors after the test, want %d as before", after, before)
		}
	})
}

// openDescriptors counts without opening one itself, so it works also when the table is full.
func openDescriptors() (count int) {
	for fd := range 2048 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			count++
		}
	}
	return count
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkSendReceive(b *testing.B) {
	for _, count := range []int{0, 1, MaxDescriptors} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			from, to := connected(b)
			fds := files(b, count)
			ctx, cancel := context.WithCancel(background)
			defer cancel()
			payload, buf := make([]byte, 64), make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				must(b, Send(ctx, from, payload, fds))
				d, err := Receive(ctx, to, buf, count)
				if err != nil {
					b.Fatal(err)
				}
				must(b, d.Close())
			}
		})
	}
}
