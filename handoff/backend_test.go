//go:build linux || darwin || freebsd

package handoff

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"github.com/segue-go/segue/internal/scm"
)

// front plays a front for one ServeConn of backend.
func front(t *testing.T, ctx context.Context, backend *Backend) (session *Session, served chan error) {
	t.Helper()
	own, conn := pair(t)
	served = make(chan error, 1)
	go func() { served <- backend.ServeConn(ctx, conn) }()
	session = NewSession(own)
	session.broker()
	if _, err := session.Connect(bounded(t), Token{}); err != nil {
		t.Fatal(err)
	}
	return session, served
}

// offerOf makes an offer of what is behind file.
func offerOf(t *testing.T, id uint64, file interface {
	Fd() uintptr
}) *Offer {
	t.Helper()
	var tokens TokenStore
	token, err := tokens.Issue()
	if err != nil {
		t.Fatal(err)
	}
	return &Offer{ID: id, Token: token, Count: 1, Correlation: 100 + id, Entries: []Entry{
		{ID: 1, Kind: kindConnection, Name: "web", Described: true, Descriptor: scm.NewDescriptor(int(file.Fd()))},
	}}
}

// tcpFile is a descriptor of a client's connection.
func tcpFile(t *testing.T) (file *os.File, own net.Conn) {
	t.Helper()
	c, own := client(t)
	file, err := c.Conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file, own
}

func answerTo(t *testing.T, session *Session, offer *Offer) Result {
	t.Helper()
	if err := session.Send(bounded(t), offer); err != nil {
		t.Fatal(err)
	}
	message, err := session.Receive(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	ack, ok := message.(*Ack)
	if !ok {
		t.Fatalf("want an ACK, have %+v", message)
	}
	if err := ack.Check(offer); err != nil {
		t.Error(err)
	}
	if !ack.Token.Equal(offer.Token) || ack.Correlation != offer.Correlation {
		t.Errorf("echo: want correlation %d and the token, have %+v", offer.Correlation, ack)
	}
	return ack.Results[0]
}

func TestBackendAnswersEachOffer(t *testing.T) {
	before := openDescriptors(t)
	t.Run("", func(t *testing.T) {
		full := errors.New("queue is full")
		backend := &Backend{Service: "web", Adopt: func(c *Client) (func(bool), error) {
			switch c.Correlation {
			case 105:
				return nil, full
			case 106:
				return nil, ErrDescriptorPressure
			}
			return func(owned bool) {
				if owned {
					_, _ = io.WriteString(c.Conn, "hello")
				}
				c.Conn.Close()
			}, nil
		}}
		ctx, leave := context.WithCancel(t.Context())
		session, served := front(t, ctx, backend)
		read, write := pipe(t)
		web, own := tcpFile(t)
		listening, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listening.Close()
		listeningFile, err := listening.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer listeningFile.Close()

		other := offerOf(t, 4, web)
		other.Entries[0].Name = "mail"
		for _, test := range []struct {
			name  string
			offer *Offer
			want  Result
		}{
			{"connection", offerOf(t, 1, web), Result{ID: 1, Accepted: true}},
			{"pipe", offerOf(t, 2, write), Result{ID: 1, Reason: ReasonIdentity}},
			{"listening socket", offerOf(t, 3, listeningFile), Result{ID: 1, Reason: ReasonIdentity}},
			{"another service", other, Result{ID: 1, Reason: ReasonService}},
			{"not adopted", offerOf(t, 5, web), Result{ID: 1, Reason: ReasonFailed}},
			{"no descriptors left", offerOf(t, 6, web), Result{ID: 1, Reason: ReasonDescriptors}},
		} {
			have := answerTo(t, session, test.offer)
			have.Detail = ""
			if have != test.want {
				t.Errorf("%s: want %+v, have %+v", test.name, test.want, have)
			}
		}
		hello := make([]byte, 5)
		if _, err := io.ReadFull(own, hello); err != nil || string(hello) != "hello" {
			t.Errorf("client: want hello, have %q, %v", hello, err)
		}
		through(t, write, read) // what was refused is as before
		leave()
		if message, err := session.Receive(bounded(t)); err != nil {
			t.Error(err)
		} else if _, ok := message.(*Bye); !ok {
			t.Errorf("want BYE, have %+v", message)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		session.Close()
	})
	if after := openDescriptors(t); after != before {
		t.Errorf("descriptors: want %d, have %d", before, after)
	}
}

// Invariant 1: a backend whose ack cannot be sent does not own the connection.
func TestInvariant1BackendWithoutAckDoesNotServe(t *testing.T) {
	adopting, goOn, owned := make(chan bool), make(chan bool), make(chan bool, 1)
	backend := &Backend{Adopt: func(c *Client) (func(bool), error) {
		adopting <- true
		<-goOn
		return func(mine bool) {
			owned <- mine
			c.Conn.Close()
		}, nil
	}}
	session, served := front(t, t.Context(), backend)
	web, _ := tcpFile(t)
	if err := session.Send(bounded(t), offerOf(t, 1, web)); err != nil {
		t.Fatal(err)
	}
	<-adopting
	if err := session.conn.CloseRead(); err != nil { // the front's fence
		t.Fatal(err)
	}
	goOn <- true
	if <-owned {
		t.Error("served without ack")
	}
	if err := <-served; err == nil {
		t.Error("want an error of the ack")
	}
}

func TestInvariant4And7HostileFronts(t *testing.T) {
	backend := &Backend{Adopt: func(c *Client) (func(bool), error) {
		t.Errorf("adopted: %+v", c)
		return nil, errors.New("must not come here")
	}}
	web, own := tcpFile(t)
	fd := int(web.Fd())
	for _, test := range []struct {
		name string
		send func(t *testing.T, session *Session)
		want error
	}{
		{"wrong token", func(t *testing.T, session *Session) {
			frame, _, _, _ := session.encode(offerOf(t, 1, web))
			sendBytes(t, session.conn, append(frame, "fedcba9876543210"...), fd)
		}, ErrTokenMismatch},
		{"token without descriptor", func(t *testing.T, session *Session) {
			frame, token, _, _ := session.encode(offerOf(t, 1, web))
			sendBytes(t, session.conn, append(frame, token...))
		}, ErrDescriptorCount},
		{"two descriptors", func(t *testing.T, session *Session) {
			frame, token, _, _ := session.encode(offerOf(t, 1, web))
			sendBytes(t, session.conn, append(frame, token...), fd, fd)
		}, ErrDescriptorCount},
		{"short token", func(t *testing.T, session *Session) {
			frame, token, _, _ := session.encode(offerOf(t, 1, web))
			sendBytes(t, session.conn, append(frame, token[:15]...), fd)
			_ = session.conn.CloseWrite()
		}, ErrMalformed},
		{"replayed token", func(t *testing.T, session *Session) {
			_, token, _, _ := session.encode(offerOf(t, 1, web))
			sendBytes(t, session.conn, token, fd) // of no offer
		}, ErrTooLarge},
		{"descriptor beside a PING", func(t *testing.T, session *Session) {
			frame, _, _, _ := session.encode(&Ping{Number: 1})
			sendBytes(t, session.conn, frame, fd)
		}, ErrDescriptorCount},
		{"no entry", func(t *testing.T, session *Session) {
			if err := session.Send(bounded(t), &Offer{ID: 1}); err != nil {
				t.Fatal(err)
			}
		}, ErrOffer},
		{"another kind", func(t *testing.T, session *Session) {
			offer := offerOf(t, 1, web)
			offer.Entries[0].Kind = "listener"
			if err := session.Send(bounded(t), offer); err != nil {
				t.Fatal(err)
			}
		}, ErrOffer},
		{"message out of place", func(t *testing.T, session *Session) {
			if err := session.Send(bounded(t), &Grant{}); err != nil {
				t.Fatal(err)
			}
		}, ErrUnexpectedMessage},
		{"message out of place before a descriptor", func(t *testing.T, session *Session) {
			frame, _, _, _ := session.encode(&Grant{})
			sendBytes(t, session.conn, append(frame, 0), fd)
		}, ErrUnexpectedMessage},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := openDescriptors(t)
			session, served := front(t, t.Context(), backend)
			test.send(t, session)
			if err := <-served; !errors.Is(err, test.want) {
				t.Errorf("want %v, have %v", test.want, err)
			}
			session.Close()
			if after := openDescriptors(t); after != before {
				t.Errorf("descriptors: want %d, have %d", before, after)
			}
		})
	}
	if _, err := own.Write([]byte("x")); err != nil { // the client has not noticed
		t.Error(err)
	}
}

func TestBackendIsForUnixSockets(t *testing.T) {
	c, _ := client(t)
	if err := new(Backend).ServeConn(t.Context(), c.Conn); !errors.Is(err, ErrUnsupported) {
		t.Errorf("want ErrUnsupported, have %v", err)
	}
}

// In the bare form, several attempts come over one connection, and what is wrong with one is told apart.
func TestBackendBare(t *testing.T) {
	tokens := &TokenStore{}
	expected, err := tokens.Issue()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan uint64, 1)
	backend := &Backend{
		Bare: func(presented []byte) error { return tokens.Redeem(expected, presented) },
		Adopt: func(c *Client) (func(bool), error) {
			return func(owned bool) {
				_, _ = io.WriteString(c.Conn, "hello")
				c.Conn.Close()
				served <- c.Correlation
			}, nil
		},
	}
	web, own := tcpFile(t)
	for _, test := range []struct {
		name  string
		token Token
		want  error
	}{
		{"mismatch", parse(t, []byte("fedcba9876543210")), ErrTokenMismatch},
		{"good", expected, nil},
		{"replay", expected, ErrTokenNotPending},
	} {
		front, conn := pair(t)
		if err := SendBare(front, test.token, web); err != nil {
			t.Fatal(err)
		}
		front.Close()
		if err := backend.ServeConn(t.Context(), conn); !errors.Is(err, test.want) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, err)
		}
	}
	<-served
	hello := make([]byte, 5)
	if _, err := io.ReadFull(own, hello); err != nil || string(hello) != "hello" {
		t.Errorf("client: want hello, have %q, %v", hello, err)
	}
}

// A front that has just come is told that the backend leaves, and not left with an end that might be a failure's.
func TestBackendThatLeavesSaysSoToWhoComes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	session, served := front(t, ctx, &Backend{})
	message, err := session.Receive(bounded(t))
	if _, ok := message.(*Bye); !ok {
		t.Errorf("want BYE, have %T, %v", message, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
