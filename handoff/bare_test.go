//go:build linux || darwin || freebsd

package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// pipe returns the two ends of a pipe: one to hand over, the other to see what became of it.
func pipe(t *testing.T) (read, write *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close(); write.Close() })
	return read, write
}

// listen opens a Unix socket.
func listen(t *testing.T) (listener *net.UnixListener, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "handoff")
	opened, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	return opened.(*net.UnixListener), path
}

// dial connects to a Unix socket.
func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

// accept takes the next connection of a listener.
func accept(t *testing.T, listener *net.UnixListener) *net.UnixConn {
	t.Helper()
	if err := listener.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// through fails the test unless what is written to the one file comes out of the other.
func through(t *testing.T, write, read *os.File) {
	t.Helper()
	if _, err := write.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 5)
	if _, err := io.ReadFull(read, buffer); err != nil || string(buffer) != "hello" {
		t.Errorf("want hello, have %q, %v", buffer, err)
	}
}

func TestBareByDial(t *testing.T) {
	listener, path := listen(t)
	read, write := pipe(t)
	tokens := &TokenStore{}
	token, _ := tokens.Issue()
	if err := DialBare(bounded(t), path, token, write); err != nil {
		t.Fatal(err)
	}
	conn := accept(t, listener)
	if err := SameUser(conn); err != nil {
		t.Error(err)
	}
	file, err := ReceiveBare(bounded(t), conn, func(presented []byte) error { return tokens.Redeem(token, presented) })
	if err != nil {
		t.Fatal(err)
	}
	through(t, file, read)
	if flags, err := fcntl(int(file.Fd()), syscall.F_GETFD); err != nil || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("want close-on-exec, have flags %#x, %v", flags, err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	through(t, write, read) // the sender's own is still there
	if _, err := ReceiveBare(bounded(t), conn, token.Verify); !errors.Is(err, ErrTokenMissing) || !errors.Is(err, io.EOF) {
		t.Errorf("after the attempt: want ErrTokenMissing and EOF, have %v", err)
	}
}

func TestBareOverOneConnection(t *testing.T) {
	from, to := pair(t)
	token := parse(t, secret)
	var reads []*os.File
	for range 5 { // all sent before the first is received: they must not run into one another
		read, write := pipe(t)
		if err := SendBare(from, token, write); err != nil {
			t.Fatal(err)
		}
		reads = append(reads, read)
	}
	for _, read := range reads {
		file, err := ReceiveBare(bounded(t), to, token.Verify)
		if err != nil {
			t.Fatal(err)
		}
		through(t, file, read)
		file.Close()
	}
}

func TestBareMovesAConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	front, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	from, to := pair(t)
	token := parse(t, secret)
	if err := SendBare(from, token, front.(*net.TCPConn)); err != nil {
		t.Fatal(err)
	}
	front.Close()
	file, err := ReceiveBare(bounded(t), to, token.Verify)
	if err != nil {
		t.Fatal(err)
	}
	backend, err := net.FileConn(file)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(client, "hello")
	buffer := make([]byte, 5)
	if _, err := io.ReadFull(backend, buffer); err != nil || string(buffer) != "hello" {
		t.Errorf("want hello, have %q, %v", buffer, err)
	}
	backend.Close()
	if _, err := client.Read(buffer); err != io.EOF {
		t.Errorf("want EOF for the client, have %v", err)
	}
}

func TestInvariant6BareIsReceivedWholeOrNotAtAll(t *testing.T) {
	read, write := pipe(t)
	fd := int(write.Fd())
	at := &clock{now: time.Unix(1000, 0)}
	for _, test := range []struct {
		name    string
		attack  func(t *testing.T, peer *net.UnixConn, tokens *TokenStore, token Token)
		want    error
		pending int // tokens afterwards
	}{
		{"right", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, token Token) {
			sendBytes(t, peer, token.Expose(), fd)
		}, nil, 0},
		{"nothing", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, _ Token) {
			peer.Close()
		}, ErrTokenMissing, 1},
		{"token without descriptor", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, token Token) {
			sendBytes(t, peer, token.Expose())
		}, ErrDescriptorCount, 1},
		{"two descriptors", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, token Token) {
			sendBytes(t, peer, token.Expose(), fd, fd)
		}, ErrDescriptorCount, 1},
		{"253 descriptors", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, token Token) {
			fds := make([]int, MaxDescriptors)
			for i := range fds {
				fds[i] = fd
			}
			sendBytes(t, peer, token.Expose(), fds...)
		}, ErrDescriptorCount, 1},
		{"short", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, token Token) {
			sendBytes(t, peer, token.Expose()[:15], fd)
		}, ErrTokenLength, 1},
		{"in two messages", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, token Token) {
			sendBytes(t, peer, token.Expose()[:8], fd)
			sendBytes(t, peer, token.Expose()[8:])
		}, ErrTokenLength, 1},
		{"one byte", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, _ Token) {
			sendBytes(t, peer, []byte{0}, fd)
		}, ErrTokenLength, 1},
		{"long", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, token Token) {
			sendBytes(t, peer, append(token.Expose(), 'x'), fd)
		}, ErrTokenLength, 1},
		{"HTTP", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, _ Token) {
			sendBytes(t, peer, []byte("GET / HTTP/1.1\r\n\r\n"))
		}, ErrTokenLength, 1},
		{"wrong", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, _ Token) {
			sendBytes(t, peer, []byte("fedcba9876543210"), fd)
		}, ErrTokenMismatch, 1},
		{"replayed", func(t *testing.T, peer *net.UnixConn, tokens *TokenStore, token Token) {
			if err := tokens.Consume(token); err != nil {
				t.Error(err)
			}
			sendBytes(t, peer, token.Expose(), fd)
		}, ErrTokenNotPending, 0},
		{"revoked", func(t *testing.T, peer *net.UnixConn, tokens *TokenStore, token Token) {
			tokens.Revoke(token)
			sendBytes(t, peer, token.Expose(), fd)
		}, ErrTokenNotPending, 0},
		{"expired", func(t *testing.T, peer *net.UnixConn, _ *TokenStore, token Token) {
			at.now = at.now.Add(DefaultTokenTTL)
			sendBytes(t, peer, token.Expose(), fd)
		}, ErrTokenExpired, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := openDescriptors(t)
			tokens := &TokenStore{Now: at.Now}
			token, err := tokens.Issue()
			if err != nil {
				t.Fatal(err)
			}
			local, peer := pair(t)
			test.attack(t, peer, tokens, token)
			file, have := ReceiveBare(bounded(t), local, func(presented []byte) error { return tokens.Redeem(token, presented) })
			if !errors.Is(have, test.want) || (file != nil) != (test.want == nil) {
				t.Errorf("want %v, have %v, %v", test.want, file, have)
			}
			if have := tokens.Pending(); have != test.pending {
				t.Errorf("pending tokens: want %d, have %d", test.pending, have)
			}
			if file != nil {
				through(t, file, read)
				file.Close()
			}
			local.Close()
			peer.Close()
			if after := openDescriptors(t); before != after {
				t.Errorf("descriptors: want %d, have %d", before, after)
			}
		})
	}
}

func TestInvariant6BareRefusalClosesTheDescriptorAndKeepsThePlace(t *testing.T) {
	from, to := pair(t)
	token := parse(t, secret)
	read, write := pipe(t)
	if err := SendBare(from, token, write); err != nil {
		t.Fatal(err)
	}
	if err := SendBare(from, token, write); err != nil {
		t.Fatal(err)
	}
	denied := errors.New("denied")
	if _, err := ReceiveBare(bounded(t), to, func([]byte) error { return denied }); !errors.Is(err, denied) {
		t.Fatalf("want the error of verify, have %v", err)
	}
	// One attempt was refused, the next is judged by itself.
	file, err := ReceiveBare(bounded(t), to, token.Verify)
	if err != nil {
		t.Fatal(err)
	}
	write.Close()
	file.Close()
	if _, err := read.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("want EOF because no copy is left, have %v", err)
	}
}

func TestReceiveBareEndsWithItsContext(t *testing.T) {
	local, _ := pair(t)
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(bounded(t))
	done := make(chan error, 1)
	go func() {
		_, err := ReceiveBare(ctx, local, parse(t, secret).Verify)
		done <- err
	}()
	cancel(reason)
	if have := <-done; !errors.Is(have, reason) {
		t.Errorf("want the cause, have %v", have)
	}
}

func FuzzReceiveBare(f *testing.F) {
	f.Add(secret, uint8(1))
	f.Add(secret, uint8(0))
	f.Add(secret, uint8(2))
	f.Add(secret[:15], uint8(1))
	f.Add(append(append([]byte{}, secret...), secret...), uint8(1))
	f.Add([]byte{0}, uint8(253))
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { null.Close() })
	f.Fuzz(func(t *testing.T, message []byte, count uint8) {
		if len(message) == 0 || len(message) > 4096 {
			return
		}
		fds := make([]int, min(int(count), MaxDescriptors))
		for i := range fds {
			fds[i] = int(null.Fd())
		}
		before := openDescriptors(t)
		local, peer := pair(t)
		sendBytes(t, peer, message, fds...)
		file, err := ReceiveBare(bounded(t), local, parse(t, secret).Verify)
		if want, have := string(message) == string(secret) && len(fds) == 1, err == nil; want != have {
			t.Errorf("%d bytes, %d descriptors: accepted: want %v, have %v, %v", len(message), len(fds), want, have, err)
		}
		if file != nil {
			file.Close()
		}
		local.Close()
		peer.Close()
		if after := openDescriptors(t); before != after {
			t.Errorf("descriptors: want %d, have %d", before, after)
		}
	})
}

func BenchmarkDialBare(b *testing.B) {
	path := filepath.Join(b.TempDir(), "handoff")
	listener, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	token, err := ParseToken(secret)
	if err != nil {
		b.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := DialBare(b.Context(), path, token, null); err != nil {
			b.Fatal(err)
		}
		conn, err := listener.Accept()
		if err != nil {
			b.Fatal(err)
		}
		file, err := ReceiveBare(b.Context(), conn.(*net.UnixConn), token.Verify)
		if err != nil {
			b.Fatal(err)
		}
		file.Close()
		conn.Close()
	}
}
