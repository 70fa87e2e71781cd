//go:build linux || darwin || freebsd

package scm

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnceKeepsMessagesApart(t *testing.T) {
	noLeak(t)
	a, b := connected(t)
	fds := files(t, 3)
	for _, sent := range []struct {
		payload string
		fds     []int
	}{{"first", fds[:1]}, {"second", fds[1:]}, {"third", fds[:1]}} {
		n, err := SendOnce(a, []byte(sent.payload), sent.fds)
		must(t, err)
		if n != len(sent.payload) {
			t.Errorf("%s: want %d bytes taken, have %d", sent.payload, len(sent.payload), n)
		}
	}
	for _, want := range []struct {
		payload string
		fds     int
	}{{"first", 1}, {"second", 2}, {"third", 1}} {
		buf := make([]byte, 64)
		n, d, err := ReceiveOnce(t.Context(), b, buf)
		must(t, err)
		if have := string(buf[:n]); have != want.payload || d.Len() != want.fds {
			t.Errorf("want %q and %d descriptors, have %q and %d", want.payload, want.fds, have, d.Len())
		}
		must(t, d.Close())
	}
	must(t, a.Close())
	if _, _, err := ReceiveOnce(t.Context(), b, make([]byte, 1)); err != io.EOF {
		t.Errorf("after close: want EOF, have %v", err)
	}
	for _, fd := range fds {
		must(t, unix.Close(fd))
	}
}

func TestSendOnceNeverWaits(t *testing.T) {
	a, b := connected(t)
	setBlocking(t, a)
	fill(t, a)
	// Another goroutine waits in the middle of its own Write, which a queued writer would have to outwait.
	ctx, cancel := context.WithCancel(t.Context())
	other := make(chan error, 1)
	go func() { other <- Send(ctx, a, []byte("x"), nil) }()
	if n, err := SendOnce(a, []byte("x"), []int{0}); n != 0 || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("full buffer: want EAGAIN, have %d, %v", n, err)
	}
	cancel()
	<-other
	must(t, b.Close())
	if n, err := SendOnce(a, []byte("x"), nil); n != 0 || !errors.Is(err, unix.EPIPE) {
		t.Errorf("closed peer: want EPIPE, have %d, %v", n, err)
	}
	must(t, a.Close())
	if _, err := SendOnce(a, []byte("x"), nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: want ErrClosed, have %v", err)
	}
}

func TestOnceArguments(t *testing.T) {
	a, b := connected(t)
	if _, err := SendOnce(a, nil, nil); err == nil {
		t.Error("empty payload: want an error")
	}
	if _, err := SendOnce(a, []byte("x"), make([]int, MaxDescriptors+1)); !errors.Is(err, ErrDescriptorCount) {
		t.Errorf("too many: want ErrDescriptorCount, have %v", err)
	}
	if _, err := SendOnce(a, []byte("x"), []int{-1}); !errors.Is(err, unix.EBADF) {
		t.Errorf("no descriptor: want EBADF, have %v", err)
	}
	if _, _, err := ReceiveOnce(t.Context(), b, nil); err == nil {
		t.Error("empty buffer: want an error")
	}
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { _, _, err := ReceiveOnce(ctx, b, make([]byte, 1)); done <- err }()
	cancel(reason)
	if err := <-done; !errors.Is(err, reason) {
		t.Errorf("want the cause of the context, have %v", err)
	}
}

func TestPeerUID(t *testing.T) {
	path := t.TempDir() + "/socket"
	listener, err := net.Listen("unix", path)
	must(t, err)
	defer listener.Close()
	dialed, err := net.Dial("unix", path)
	must(t, err)
	defer dialed.Close()
	accepted, err := listener.Accept()
	must(t, err)
	for name, conn := range map[string]net.Conn{"dialed": dialed, "accepted": accepted} {
		if uid, err := PeerUID(conn.(*net.UnixConn)); err != nil || uid != os.Geteuid() {
			t.Errorf("%s: want uid %d, have %d, %v", name, os.Geteuid(), uid, err)
		}
	}
	must(t, accepted.Close())
	if _, err := PeerUID(accepted.(*net.UnixConn)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: want ErrClosed, have %v", err)
	}
}
