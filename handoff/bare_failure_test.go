//go:build linux

package handoff

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// checkFailure fails the test unless err is a *Failure of the given sentinel that did not reach the peer, and the sender
// still has what it meant to send.
func checkFailure(t *testing.T, want, err error, write, read *os.File) {
	t.Helper()
	var failure *Failure
	if !errors.As(err, &failure) || !errors.Is(err, want) {
		t.Errorf("want a *Failure for %v, have %v", want, err)
		return
	}
	if failure.Reached {
		t.Errorf("want it not to have reached the peer, have %v", err)
	}
	if fallback := FallbackFor(err); !fallback.SafeToHide() {
		t.Errorf("%v: want a reconnect that is safe to hide, have %q", err, fallback)
	}
	through(t, write, read)
}

func TestDialBareFails(t *testing.T) {
	listener, path := listen(t)
	listener.SetUnlinkOnClose(false)
	listener.Close() // the file stays, and refuses
	directory := filepath.Dir(path)
	regular := filepath.Join(directory, "regular")
	if err := os.WriteFile(regular, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(directory, "packets"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	read, write := pipe(t)
	closed, _ := pipe(t)
	closed.Close()
	_, open := listen(t)

	for _, test := range []struct {
		name  string
		ctx   context.Context
		path  string
		token Token
		file  *os.File
		want  error
		errno syscall.Errno
	}{
		{"missing", bounded(t), filepath.Join(directory, "missing"), parse(t, secret), write, ErrUnavailable, syscall.ENOENT},
		{"refused", bounded(t), path, parse(t, secret), write, ErrUnavailable, syscall.ECONNREFUSED},
		{"regular file", bounded(t), regular, parse(t, secret), write, ErrUnavailable, syscall.ECONNREFUSED},
		{"packet socket", bounded(t), packets.LocalAddr().String(), parse(t, secret), write, ErrUnavailable, syscall.EPROTOTYPE},
		{"below a file", bounded(t), regular + "/socket", parse(t, secret), write, ErrUnavailable, syscall.ENOTDIR},
		{"long path", bounded(t), "/" + strings.Repeat("x", 200), parse(t, secret), write, ErrUnavailable, syscall.EINVAL},
		{"cancelled", cancelled, open, parse(t, secret), write, ErrUnavailable, 0},
		{"no token", bounded(t), open, Token{}, write, ErrTokenMissing, 0},
		{"closed file", bounded(t), open, parse(t, secret), closed, ErrSendFailed, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := openDescriptors(t)
			err := DialBare(test.ctx, test.path, test.token, test.file)
			checkFailure(t, test.want, err, write, read)
			var errno syscall.Errno
			if errors.As(err, &errno); errno != test.errno {
				t.Errorf("errno: want %v, have %v", test.errno, errno)
			}
			if after := openDescriptors(t); before != after {
				t.Errorf("descriptors: want %d, have %d", before, after)
			}
		})
	}
}

// unconnected returns a socket that has no other end.
func unconnected(t *testing.T) *net.UnixConn {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "unconnected")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

func TestSendBareFails(t *testing.T) {
	for _, test := range []struct {
		name string
		conn func(t *testing.T) *net.UnixConn
		want error
	}{
		{"peer closed between dial and send", func(t *testing.T) *net.UnixConn {
			listener, path := listen(t)
			conn := dial(t, path)
			accept(t, listener).Close()
			return conn
		}, syscall.EPIPE},
		{"peer died with the connection in its backlog", func(t *testing.T) *net.UnixConn {
			listener, path := listen(t)
			conn := dial(t, path)
			listener.Close()
			return conn
		}, ErrUnavailable},
		{"peer closed with something unread", func(t *testing.T) *net.UnixConn {
			conn, peer := pair(t)
			sendBytes(t, conn, []byte("unread"))
			peer.Close()
			return conn
		}, ErrUnavailable},
		{"peer stopped reading", func(t *testing.T) *net.UnixConn {
			conn, peer := pair(t)
			if err := peer.CloseRead(); err != nil {
				t.Fatal(err)
			}
			return conn
		}, syscall.EPIPE},
		{"not connected", unconnected, syscall.ENOTCONN},
		{"closed here", func(t *testing.T) *net.UnixConn {
			conn, _ := pair(t)
			conn.Close()
			return conn
		}, net.ErrClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := test.conn(t)
			read, write := pipe(t)
			err := SendBare(conn, parse(t, secret), write)
			checkFailure(t, ErrUnavailable, err, write, read)
			if !errors.Is(err, test.want) {
				t.Errorf("want %v, have %v", test.want, err)
			}
		})
	}
}

func TestSendBareToAPeerThatReadsNothing(t *testing.T) {
	before := openDescriptors(t)
	from, to := pair(t)
	read, write := pipe(t)
	token := parse(t, secret)
	sent := 0
	var err error
	for start := time.Now(); err == nil && time.Since(start) < 20*time.Second; sent++ {
		err = SendBare(from, token, write)
	}
	checkFailure(t, ErrWouldBlock, err, write, read)
	if !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("want EAGAIN, have %v", err)
	}
	for i := range sent - 1 { // what was taken was taken whole
		file, err := ReceiveBare(bounded(t), to, token.Verify)
		if err != nil {
			t.Fatalf("%d of %d: %v", i+1, sent-1, err)
		}
		file.Close()
	}
	if err := SendBare(from, token, write); err != nil {
		t.Errorf("after it has read: %v", err)
	}
	from.Close()
	to.Close()
	read.Close()
	write.Close()
	if after := openDescriptors(t); before != after {
		t.Errorf("descriptors: want %d, have %d", before, after)
	}
}

func TestDialBareToAPeerThatAcceptsNothing(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	path := filepath.Join(t.TempDir(), "handoff")
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	read, write := pipe(t)
	for range 8 {
		if err = DialBare(bounded(t), path, parse(t, secret), write); err != nil {
			break
		}
	}
	checkFailure(t, ErrWouldBlock, err, write, read)
}

const childVariable = "SEGUE_HANDOFF_TEST_CHILD"

// inChild runs this one test again as another user who owns nothing, in the given directory, and reports true there.
func inChild(t *testing.T, directory string) bool {
	t.Helper()
	if os.Getenv(childVariable) != "" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	// By its path the binary may be out of reach for another user.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), childVariable+"="+directory, "GOCOVERDIR="+directory)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	output, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) {
		t.Skip("this root may not become another user: ", err)
	}
	if err != nil || !strings.Contains(string(output), "\n--- PASS: "+t.Name()) {
		t.Errorf("child: %v\n%s", err, output)
	}
	return false
}

func TestBareAsAnotherUser(t *testing.T) {
	directory := os.Getenv(childVariable)
	if directory == "" {
		var err error
		// Not t.TempDir, whose parent only its owner may enter.
		if directory, err = os.MkdirTemp("", "segue"); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(directory)
		closed := filepath.Join(directory, "closed")
		if err := errors.Join(os.Chmod(directory, 0o755), os.Mkdir(closed, 0o755)); err != nil {
			t.Fatal(err)
		}
		for _, socket := range []struct {
			path string
			mode os.FileMode
		}{{"0000", 0}, {"0777", 0o777}, {"closed/0777", 0o777}} {
			path := filepath.Join(directory, socket.path)
			listener, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			if err := os.Chmod(path, socket.mode); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(closed, 0); err != nil {
			t.Fatal(err)
		}
	}
	if !inChild(t, directory) {
		return
	}
	read, write := pipe(t)
	token := parse(t, secret)
	for _, name := range []string{"0000", "closed/0777"} {
		err := DialBare(bounded(t), filepath.Join(directory, name), token, write)
		checkFailure(t, ErrPermission, err, write, read)
		if !errors.Is(err, syscall.EACCES) || FallbackFor(err) != FallbackPermissionDenied {
			t.Errorf("%s: want EACCES and %q, have %v", name, FallbackPermissionDenied, err)
		}
	}
	conn := dial(t, filepath.Join(directory, "0777"))
	if err := SameUser(conn); !errors.Is(err, ErrPermission) {
		t.Errorf("socket of root: want ErrPermission, have %v", err)
	}

	// Of the descriptors in flight only a user's own are counted, and root's not at all.
	from, to := pair(t)
	limit(t, 64)
	var err error
	for err == nil {
		err = SendBare(from, token, write)
	}
	checkFailure(t, ErrDescriptorPressure, err, write, read)
	if !errors.Is(err, syscall.ETOOMANYREFS) {
		t.Errorf("want ETOOMANYREFS, have %v", err)
	}
	limit(t, 3) // no number is left
	err = DialBare(bounded(t), filepath.Join(directory, "0777"), token, write)
	checkFailure(t, ErrDescriptorPressure, err, write, read)
	if !errors.Is(err, syscall.EMFILE) {
		t.Errorf("want EMFILE, have %v", err)
	}
	if file, err := ReceiveBare(bounded(t), to, token.Verify); !errors.Is(err, ErrTruncated) {
		t.Errorf("receive: want ErrTruncated, have %v, %v", file, err)
	}
}

// limit bounds this process's descriptor numbers.
func limit(t *testing.T, numbers uint64) {
	t.Helper()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: numbers, Max: 1024}); err != nil {
		t.Fatal(err)
	}
}
