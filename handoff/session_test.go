//go:build linux || darwin || freebsd

package handoff

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/scm"
	"github.com/segue-go/segue/internal/wire"
)

// pair returns the two ends of a connected socket.
func pair(t *testing.T) (predecessor, successor *net.UnixConn) {
	t.Helper()
	predecessor, remote, err := scm.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	conn, err := net.FileConn(remote)
	if err != nil {
		t.Fatal(err)
	}
	successor = conn.(*net.UnixConn)
	t.Cleanup(func() { predecessor.Close(); successor.Close() })
	return predecessor, successor
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func send(t *testing.T, conn *net.UnixConn, message Message) {
	t.Helper()
	frame, err := wire.AppendFrame(nil, message.kind(), message)
	if err != nil {
		t.Fatal(err)
	}
	sendBytes(t, conn, frame)
}

func sendBytes(t *testing.T, conn *net.UnixConn, bytes []byte, descriptors ...int) {
	t.Helper()
	if err := scm.Send(bounded(t), conn, bytes, descriptors); err != nil {
		t.Fatal(err)
	}
}

// openDescriptors counts this process's, so that a test can show that none is left.
func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("descriptors are counted in /proc, which is not here: ", err)
	}
	return len(entries)
}

type admission struct {
	hello *Hello
	err   error
}

func admit(t *testing.T, conn *net.UnixConn, tokens *TokenStore, expected Token) (*Session, <-chan admission) {
	session := NewSession(conn)
	done := make(chan admission, 1)
	ctx := bounded(t)
	go func() {
		hello, err := session.Admit(ctx, tokens, expected, 2)
		done <- admission{hello, err}
	}()
	return session, done
}

func TestHandshake(t *testing.T) {
	predecessor, successor := pair(t)
	tokens := &TokenStore{}
	token, err := tokens.Issue()
	if err != nil {
		t.Fatal(err)
	}
	_, done := admit(t, predecessor, tokens, token)
	welcome, err := NewSession(successor).Connect(bounded(t), token)
	if err != nil {
		t.Fatal(err)
	}
	if want, have := uint64(2), welcome.Generation; want != have {
		t.Errorf("generation: want %d, have %d", want, have)
	}
	admitted := <-done
	if admitted.err != nil || admitted.hello.PID != os.Getpid() {
		t.Errorf("want pid %d and no error, have %+v, %v", os.Getpid(), admitted.hello, admitted.err)
	}
	if want, have := 0, tokens.Pending(); want != have {
		t.Errorf("pending tokens: want %d, have %d", want, have)
	}
}

func TestHandshakeWithANewerSuccessor(t *testing.T) {
	predecessor, successor := pair(t)
	tokens := &TokenStore{}
	token, _ := tokens.Issue()
	_, done := admit(t, predecessor, tokens, token)
	send(t, successor, &Hello{Version: 9, Capabilities: []string{"telepathy", CapabilityListeners}, Token: token, PID: 1})
	message, err := NewSession(successor).Receive(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	welcome, ok := message.(*Welcome)
	if !ok || welcome.Version != Version || len(welcome.Capabilities) != 1 || welcome.Capabilities[0] != CapabilityListeners {
		t.Errorf("want WELCOME to version %d with %q only, have %+v", Version, CapabilityListeners, message)
	}
	if admitted := <-done; admitted.err != nil {
		t.Error(admitted.err)
	}
}

func TestInvariant4NobodyIsAdmittedWithoutTheToken(t *testing.T) {
	for _, test := range []struct {
		name  string
		hello func(right, other Token) Message
		want  error
		word  Reason
	}{
		{"none", func(_, _ Token) Message { return &Hello{Version: 1} }, ErrTokenMissing, ReasonToken},
		{"another pending one", func(_, other Token) Message { return &Hello{Version: 1, Token: other} }, ErrTokenMismatch, ReasonToken},
		{"right token, version 0", func(right, _ Token) Message { return &Hello{Token: right} }, ErrVersion, ReasonVersion},
		{"another message", func(_, _ Token) Message { return &Ready{} }, ErrUnexpectedMessage, ReasonUnexpected},
	} {
		t.Run(test.name, func(t *testing.T) {
			predecessor, successor := pair(t)
			tokens := &TokenStore{}
			right, _ := tokens.Issue()
			other, _ := tokens.Issue()
			_, done := admit(t, predecessor, tokens, right)
			send(t, successor, test.hello(right, other))
			message, err := NewSession(successor).Receive(bounded(t))
			if err != nil {
				t.Fatal(err)
			}
			if refuse, ok := message.(*Refuse); !ok || refuse.Reason != test.word {
				t.Errorf("want REFUSE for %q, have %+v", test.word, message)
			}
			if admitted := <-done; !errors.Is(admitted.err, test.want) {
				t.Errorf("want %v, have %v", test.want, admitted.err)
			}
		})
	}
}

func TestInvariant4ATokenAdmitsOnce(t *testing.T) {
	tokens := &TokenStore{}
	token, _ := tokens.Issue()
	for i, want := range []error{nil, ErrTokenNotPending} {
		predecessor, successor := pair(t)
		_, done := admit(t, predecessor, tokens, token)
		_, err := NewSession(successor).Connect(bounded(t), token)
		if have := (<-done).err; !errors.Is(have, want) {
			t.Errorf("use %d: want %v, have %v", i+1, want, have)
		}
		if i == 1 && !errors.Is(err, ErrRefused) {
			t.Errorf("use 2: successor wants ErrRefused, has %v", err)
		}
	}
}

func TestConnectUnderstandsAnswers(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer Message
		want   error
	}{
		{"refusal", &Refuse{Reason: "a newer word", Detail: "because"}, ErrRefused},
		{"version from the future", &Welcome{Version: 2}, ErrVersion},
		{"version 0", &Welcome{}, ErrVersion},
		{"something else", &Ping{}, ErrUnexpectedMessage},
	} {
		predecessor, successor := pair(t)
		send(t, predecessor, test.answer)
		if _, have := NewSession(successor).Connect(bounded(t), parse(t, secret)); !errors.Is(have, test.want) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, have)
		}
	}
	predecessor, successor := pair(t)
	predecessor.Close()
	if _, have := NewSession(successor).Connect(bounded(t), parse(t, secret)); !errors.Is(have, io.EOF) && !errors.Is(have, syscall.EPIPE) {
		t.Errorf("dead predecessor: want EOF or EPIPE, have %v", have)
	}
}

func TestOfferCarriesDescriptors(t *testing.T) {
	before := openDescriptors(t)
	predecessor, successor := pair(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	offer := Offers([]Entry{
		{Kind: "state", Name: "first", Data: []byte("value")},
		{Kind: "file", Name: "read", Descriptor: descriptor(t, read)},
		{Kind: "file", Name: "write", Descriptor: descriptor(t, write)},
	})[0]
	offer.Token = parse(t, secret)
	from, to := NewSession(predecessor), NewSession(successor)
	to.body = wire.MaxBody
	sent := make(chan error, 1)
	ctx := bounded(t)
	go func() { sent <- from.Send(ctx, offer) }()
	message, err := to.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	offer.Close()
	have := message.(*Offer)
	if have.Entries[0].Descriptor != nil || string(have.Entries[0].Data) != "value" {
		t.Errorf("first entry: want a value and no file, have %+v", have.Entries[0])
	}
	var files [2]*os.File
	for i := range files {
		received := have.Entries[i+1].Descriptor
		flags, err := fcntl(received.FD(), syscall.F_GETFD)
		if err != nil || flags&syscall.FD_CLOEXEC == 0 {
			t.Errorf("entry %d: want close-on-exec, have flags %#x, %v", i+1, flags, err)
		}
		files[i] = received.File("pipe")
		defer files[i].Close()
	}
	if _, err := files[1].Write([]byte("through")); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 7)
	if _, err := io.ReadFull(files[0], buffer); err != nil || string(buffer) != "through" {
		t.Errorf("want the pipe's two ends, have %q, %v", buffer, err)
	}
	files[0].Close()
	files[1].Close()
	have.Close()
	from.Close()
	to.Close()
	if after := openDescriptors(t); before != after {
		t.Errorf("descriptors: want %d, have %d", before, after)
	}
}

// descriptor makes one of a file, which it closes.
func descriptor(t *testing.T, file *os.File) *Descriptor {
	t.Helper()
	defer file.Close()
	d, err := scm.Duplicate(file)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func fcntl(fd, command int) (flags int, err error) {
	result, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), uintptr(command), 0)
	if errno != 0 {
		err = errno
	}
	return int(result), err
}

func TestInvariant6And7HostilePeers(t *testing.T) {
	pipe, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	defer pipe.Close()
	fd := int(pipe.Fd())
	token := parse(t, secret)
	offer := &Offer{ID: 1, Token: token, Count: 1, Entries: []Entry{{ID: 1, Kind: "file", Described: true}}}

	for _, test := range []struct {
		name   string
		attack func(t *testing.T, peer *net.UnixConn)
		want   error
	}{
		{"closes at once", func(t *testing.T, peer *net.UnixConn) { peer.Close() }, io.EOF},
		{"closes in a header", func(t *testing.T, peer *net.UnixConn) { sendBytes(t, peer, []byte{0, 0}); peer.Close() }, ErrMalformed},
		{"closes in a body", func(t *testing.T, peer *net.UnixConn) { sendBytes(t, peer, []byte{0, 0, 0, 9, 7, 1}); peer.Close() }, ErrMalformed},
		{"HTTP", func(t *testing.T, peer *net.UnixConn) { sendBytes(t, peer, []byte("GET / HTTP/1.1\r\n\r\n")) }, ErrTooLarge},
		{"4 GiB", func(t *testing.T, peer *net.UnixConn) { sendBytes(t, peer, []byte{255, 255, 255, 255, 7}) }, ErrTooLarge},
		{"more than a stranger may", func(t *testing.T, peer *net.UnixConn) { sendBytes(t, peer, []byte{0, 0, 16, 1, 1}) }, ErrTooLarge},
		{"type 0", func(t *testing.T, peer *net.UnixConn) { sendBytes(t, peer, []byte{0, 0, 0, 1, 0, 0xa0}) }, ErrUnknownMessage},
		{"type 255", func(t *testing.T, peer *net.UnixConn) { sendBytes(t, peer, []byte{0, 0, 0, 1, 255, 0xa0}) }, ErrUnknownMessage},
		{"no CBOR", func(t *testing.T, peer *net.UnixConn) { sendBytes(t, peer, []byte{0, 0, 0, 2, 8, 0xff, 0xff}) }, ErrMalformed},
		{"empty body", func(t *testing.T, peer *net.UnixConn) { sendBytes(t, peer, []byte{0, 0, 0, 0, 8}) }, ErrMalformed},
		{"short token in HELLO", func(t *testing.T, peer *net.UnixConn) {
			sendBytes(t, peer, []byte{0, 0, 0, 4, 1, 0xa1, 0x03, 0x41, 'x'})
		}, ErrTokenLength},
		{"descriptor beside a header", func(t *testing.T, peer *net.UnixConn) {
			sendBytes(t, peer, []byte{0, 0, 0, 1, 7, 0xa0}, fd)
		}, ErrDescriptorCount},
		{"descriptor beside a body", func(t *testing.T, peer *net.UnixConn) {
			sendBytes(t, peer, []byte{0, 0, 0, 1, 7})
			sendBytes(t, peer, []byte{0xa0}, fd)
		}, ErrDescriptorCount},
		{"offer without its descriptor", func(t *testing.T, peer *net.UnixConn) {
			send(t, peer, offer)
			sendBytes(t, peer, token.Expose())
		}, ErrDescriptorCount},
		{"offer with two for one", func(t *testing.T, peer *net.UnixConn) {
			send(t, peer, offer)
			sendBytes(t, peer, token.Expose(), fd, fd)
		}, ErrDescriptorCount},
		{"offer with another token", func(t *testing.T, peer *net.UnixConn) {
			send(t, peer, offer)
			sendBytes(t, peer, []byte("fedcba9876543210"), fd)
		}, ErrTokenMismatch},
		{"offer, then nothing", func(t *testing.T, peer *net.UnixConn) { send(t, peer, offer) }, ErrFrameTimeout},
		{"offer, then the end", func(t *testing.T, peer *net.UnixConn) { send(t, peer, offer); peer.Close() }, ErrMalformed},
		{"half a header, then nothing", func(t *testing.T, peer *net.UnixConn) { sendBytes(t, peer, []byte{0, 0}) }, ErrFrameTimeout},
		{"half a body, then nothing", func(t *testing.T, peer *net.UnixConn) { sendBytes(t, peer, []byte{0, 0, 0, 9, 7, 1}) }, ErrFrameTimeout},
		{"offer that contradicts itself", func(t *testing.T, peer *net.UnixConn) {
			send(t, peer, &Offer{ID: 1, Token: token, Count: 200})
		}, ErrOffer},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := openDescriptors(t)
			local, peer := pair(t)
			session := NewSession(local)
			if errors.Is(test.want, ErrFrameTimeout) {
				session.stream.patience = 20 * time.Millisecond
			}
			test.attack(t, peer)
			message, have := session.Receive(bounded(t))
			if !errors.Is(have, test.want) || message != nil {
				t.Errorf("want %v, have %v, %v", test.want, message, have)
			}
			session.Close()
			peer.Close()
			if after := openDescriptors(t); before != after {
				t.Errorf("descriptors: want %d, have %d", before, after)
			}
		})
	}
}

func TestReceiveEndsWithItsContext(t *testing.T) {
	local, _ := pair(t)
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(bounded(t))
	done := make(chan error, 1)
	go func() {
		_, err := NewSession(local).Receive(ctx)
		done <- err
	}()
	cancel(reason)
	if have := <-done; !errors.Is(have, reason) {
		t.Errorf("want the cause, have %v", have)
	}
}

func TestSendToADeadPeer(t *testing.T) {
	local, peer := pair(t)
	peer.Close()
	if have := NewSession(local).Send(bounded(t), &Ready{}); !errors.Is(have, syscall.EPIPE) {
		t.Errorf("want EPIPE, have %v", have)
	}
}

func TestSendEndsWithItsContextWhenThePeerDoesNotRead(t *testing.T) {
	local, _ := pair(t)
	session := NewSession(local)
	ctx, cancel := context.WithTimeout(bounded(t), 50*time.Millisecond)
	defer cancel()
	big := &Offer{Entries: []Entry{{Kind: "state", Data: make([]byte, MaxData)}}}
	for {
		if err := session.Send(ctx, big); err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("want DeadlineExceeded, have %v", err)
			}
			return
		}
	}
}

func TestAckMustAnswerItsOffer(t *testing.T) {
	offer := &Offer{ID: 3, Entries: []Entry{{ID: 5}, {ID: 6}}}
	for _, test := range []struct {
		name string
		ack  Ack
		want error
	}{
		{"right", Ack{Offer: 3, Results: []Result{{ID: 5}, {ID: 6, Accepted: true}}}, nil},
		{"other offer", Ack{Offer: 2, Results: []Result{{ID: 5}, {ID: 6}}}, ErrAck},
		{"missing result", Ack{Offer: 3, Results: []Result{{ID: 5}}}, ErrAck},
		{"one too many", Ack{Offer: 3, Results: []Result{{ID: 5}, {ID: 6}, {ID: 7}}}, ErrAck},
		{"other entry", Ack{Offer: 3, Results: []Result{{ID: 5}, {ID: 5}}}, ErrAck},
	} {
		if have := test.ack.Check(offer); !errors.Is(have, test.want) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, have)
		}
	}
}
