//go:build linux

package broker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
)

// refuge is where a front reconnects to.
func refuge(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "refuge") }))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// false backends: what they do with one socket of a front.

// greet speaks the protocol up to the first offer.
func greet(t *testing.T, conn *net.UnixConn, credit uint32) *handoff.Session {
	session := handoff.NewSession(conn)
	if _, err := session.Receive(t.Context()); err != nil {
		return nil // the front has ended
	}
	welcome := &handoff.Welcome{
		Version: 1, Capabilities: []string{handoff.CapabilityBroker},
		Limits: handoff.Limits{Body: 1 << 20, Descriptors: handoff.MaxDescriptors, Credit: credit},
	}
	if err := session.Send(t.Context(), welcome); err != nil {
		return nil
	}
	return session
}

// offers calls each for each offer, until the front ends the session or each returns false.
func offers(t *testing.T, conn *net.UnixConn, each func(session *handoff.Session, offer *handoff.Offer) bool) {
	session := greet(t, conn, 1000)
	for session != nil {
		message, err := session.Receive(t.Context())
		if err != nil {
			return
		}
		if offer, ok := message.(*handoff.Offer); ok {
			goOn := each(session, offer)
			_ = offer.Close()
			if !goOn {
				return
			}
		}
	}
}

func ack(offer *handoff.Offer, token handoff.Token) *handoff.Ack {
	return &handoff.Ack{
		Offer: offer.ID, Results: []handoff.Result{{ID: 1, Accepted: true}}, Credit: 1000, Token: token, Correlation: offer.Correlation,
	}
}

func token(t *testing.T, text string) handoff.Token {
	t.Helper()
	token, err := handoff.ParseToken([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// echo answers an offer with a frame whose token is bytes, which no Token can be.
func echo(conn *net.UnixConn, offer *handoff.Offer, bytes []byte) {
	frame := []byte{5, 0xa4, 1, byte(offer.ID), 2, 0x81, 0xa2, 1, 1, 2, 0xf5, 4, 0x40 + byte(len(bytes))}
	frame = append(append(frame, bytes...), 5, byte(offer.Correlation)) // an ACK in CBOR; both numbers are below 24
	_, _ = conn.Write(append([]byte{0, 0, 0, byte(len(frame) - 1)}, frame...))
}

// TestInvariant3TheClientGetsItsAnswer provokes each way in which a handoff can fail. The fallback is one that the front has to name.
func TestInvariant3TheClientGetsItsAnswer(t *testing.T) {
	other := token(t, "fedcba9876543210")
	for _, test := range []struct {
		name     string
		play     func(t *testing.T, conn *net.UnixConn) // nil: nobody listens
		fallback handoff.Fallback
	}{
		{"missing path", nil, handoff.FallbackAckTimeout},
		{"closed between dial and send", func(t *testing.T, conn *net.UnixConn) {}, handoff.FallbackAckTimeout},
		{"reads nothing", func(t *testing.T, conn *net.UnixConn) { <-t.Context().Done() }, handoff.FallbackAckTimeout},
		{"reads nothing more", func(t *testing.T, conn *net.UnixConn) {
			greet(t, conn, 1000)
			<-t.Context().Done()
		}, handoff.FallbackAckTimeout},
		{"closed after the greeting", func(t *testing.T, conn *net.UnixConn) { greet(t, conn, 1000) }, handoff.FallbackAckTimeout},
		{"closed after the offer", func(t *testing.T, conn *net.UnixConn) {
			offers(t, conn, func(*handoff.Session, *handoff.Offer) bool { return false })
		}, handoff.FallbackAckTimeout},
		{"another protocol", func(t *testing.T, conn *net.UnixConn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			<-t.Context().Done()
		}, handoff.FallbackAckTimeout},
		{"refuses the session", func(t *testing.T, conn *net.UnixConn) {
			session := handoff.NewSession(conn)
			if _, err := session.Receive(t.Context()); err == nil {
				_ = session.Send(t.Context(), &handoff.Refuse{Reason: handoff.ReasonVersion})
			}
		}, handoff.FallbackIntegrityMismatch},
		{"refuses the connection", func(t *testing.T, conn *net.UnixConn) {
			offers(t, conn, func(session *handoff.Session, offer *handoff.Offer) bool {
				no := ack(offer, offer.Token)
				no.Results[0] = handoff.Result{ID: 1, Reason: handoff.ReasonService}
				return session.Send(t.Context(), no) == nil
			})
		}, handoff.FallbackPolicyDisabled},
		{"has no descriptors left", func(t *testing.T, conn *net.UnixConn) {
			offers(t, conn, func(session *handoff.Session, offer *handoff.Offer) bool {
				no := ack(offer, offer.Token)
				no.Results[0] = handoff.Result{ID: 1, Reason: handoff.ReasonDescriptors}
				return session.Send(t.Context(), no) == nil
			})
		}, handoff.FallbackDescriptorPressure},
		{"has no credit", func(t *testing.T, conn *net.UnixConn) {
			greet(t, conn, 0)
			<-t.Context().Done()
		}, handoff.FallbackAckTimeout},
		{"wrong token", func(t *testing.T, conn *net.UnixConn) {
			offers(t, conn, func(session *handoff.Session, offer *handoff.Offer) bool {
				return session.Send(t.Context(), ack(offer, other)) == nil
			})
		}, handoff.FallbackIntegrityMismatch},
		{"no token", func(t *testing.T, conn *net.UnixConn) {
			offers(t, conn, func(session *handoff.Session, offer *handoff.Offer) bool {
				return session.Send(t.Context(), ack(offer, handoff.Token{})) == nil
			})
		}, handoff.FallbackIntegrityMismatch},
		{"short token", func(t *testing.T, conn *net.UnixConn) {
			offers(t, conn, func(_ *handoff.Session, offer *handoff.Offer) bool {
				echo(conn, offer, offer.Token.Expose()[:15])
				return true
			})
		}, handoff.FallbackIntegrityMismatch},
		{"long token", func(t *testing.T, conn *net.UnixConn) {
			offers(t, conn, func(_ *handoff.Session, offer *handoff.Offer) bool {
				echo(conn, offer, append(offer.Token.Expose(), 0))
				return true
			})
		}, handoff.FallbackIntegrityMismatch},
		{"replayed token", func(t *testing.T, conn *net.UnixConn) {
			var first handoff.Token
			offers(t, conn, func(session *handoff.Session, offer *handoff.Offer) bool {
				if first.IsZero() {
					first = offer.Token
					no := ack(offer, first)
					no.Results[0] = handoff.Result{ID: 1, Reason: handoff.ReasonService}
					return session.Send(t.Context(), no) == nil
				}
				return session.Send(t.Context(), ack(offer, first)) == nil
			})
		}, handoff.FallbackIntegrityMismatch},
		{"acks late, when the token has expired", func(t *testing.T, conn *net.UnixConn) {
			// Sooner than the front ends the session nobody can be late, and after it no ack can be sent.
			var late *handoff.Offer
			session := greet(t, conn, 1000)
			for session != nil {
				message, err := session.Receive(t.Context())
				if offer, ok := message.(*handoff.Offer); ok {
					late = offer
				}
				if err == nil {
					continue
				}
				if late != nil {
					if err := session.Send(t.Context(), ack(late, late.Token)); !errors.Is(err, syscall.EPIPE) {
						t.Errorf("late ack: want EPIPE, have %v", err)
					}
					_ = late.Close()
				}
				return
			}
		}, handoff.FallbackAckTimeout},
		{"acks twice", func(t *testing.T, conn *net.UnixConn) {
			offers(t, conn, func(session *handoff.Session, offer *handoff.Offer) bool {
				no := ack(offer, offer.Token)
				no.Results[0] = handoff.Result{ID: 1, Reason: handoff.ReasonService}
				first := session.Send(t.Context(), no)
				again := session.Send(t.Context(), no)
				return first == nil && again == nil
			})
		}, handoff.FallbackPolicyDisabled},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "handoff")
			if test.play != nil {
				play(t, socket, test.play)
			}
			front := start(t, "front", "-listen", "127.0.0.1:0", "-backend", socket, "-reconnect", refuge(t), "-deadline", "300ms")
			const clients = 12 // after 8 failures no attempt is made any more
			for range clients {
				if have, err := get(front.addr); err != nil || have != "refuge" {
					t.Fatalf("want refuge, have %q, %v", have, err)
				}
			}
			done := front.stop()
			if done.reconnected != clients || done.handedOver != 0 || done.lost != 0 {
				t.Errorf("want %d reconnected, have %+v", clients, done)
			}
			if !strings.Contains(done.fallbacks, string(test.fallback)) {
				t.Errorf("want %q among the fallbacks, have %q", test.fallback, done.fallbacks)
			}
		})
	}
}

// play listens at a path and lets do have each connection, until the end of the test.
func play(t *testing.T, socket string, do func(t *testing.T, conn *net.UnixConn)) {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var playing sync.WaitGroup
	playing.Go(func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			playing.Go(func() {
				defer conn.Close()
				do(t, conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		playing.Wait() // t.Context has ended
	})
}

// TestInvariant7OffersWithoutAck has a backend take thousands of offers and answer none.
func TestInvariant7OffersWithoutAck(t *testing.T) {
	clients := 10_000
	if raceEnabled {
		clients = 2000 // the race detector takes a tenth of the front's speed
	}
	socket := filepath.Join(t.TempDir(), "handoff")
	play(t, socket, func(t *testing.T, conn *net.UnixConn) {
		offers(t, conn, func(*handoff.Session, *handoff.Offer) bool { return true })
	})
	front := start(t, "front", "-listen", "127.0.0.1:0", "-backend", socket, "-reconnect", refuge(t), "-deadline", "200ms")
	before := front.descriptors()
	work := make(chan int)
	var crowd sync.WaitGroup
	for range 100 {
		crowd.Go(func() {
			for range work {
				if have, err := get(front.addr); err != nil || have != "refuge" {
					t.Errorf("want refuge, have %q, %v", have, err)
				}
			}
		})
	}
	for i := range clients {
		work <- i
	}
	close(work)
	crowd.Wait()
	front.settles(before + 1) // the socket to the backend
	done := front.stop()
	t.Logf("%+v", done)
	if done.reconnected != clients || done.handedOver != 0 || done.lost != 0 {
		t.Errorf("want %d reconnected, have %+v", clients, done)
	}
}

// TestInvariant3AsAnotherUser has a front that may not use the backend's socket, and one that may, but is not its user.
func TestInvariant3AsAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	for _, bare := range []bool{false, true} {
		for _, test := range []struct {
			mode     os.FileMode
			fallback handoff.Fallback
		}{{0, handoff.FallbackPermissionDenied}, {0o777, handoff.FallbackPermissionDenied}} {
			if bare && test.mode != 0 {
				continue // in the bare form it is the backend that says no, and it says nothing
			}
			t.Run(fmt.Sprintf("%04o bare=%v", test.mode, bare), func(t *testing.T) {
				directory, err := os.MkdirTemp("", "segue-broker-") // not t.TempDir, whose parent only its owner may enter
				if err != nil {
					t.Fatal(err)
				}
				defer os.RemoveAll(directory)
				socket := filepath.Join(directory, "handoff")
				play(t, socket, func(t *testing.T, conn *net.UnixConn) {
					offers(t, conn, func(session *handoff.Session, offer *handoff.Offer) bool {
						t.Error("offer by another user's front") // SameUser is looked at by both sides
						return false
					})
				})
				if err := errors.Join(os.Chmod(directory, 0o755), os.Chmod(socket, test.mode)); err != nil {
					t.Fatal(err)
				}
				arguments := []string{"-listen", "127.0.0.1:0", "-backend", socket, "-reconnect", refuge(t)}
				if bare {
					arguments = append(arguments, "-bare", "-token", strings.Repeat("0f", handoff.TokenSize))
				}
				front := startAs(t, &syscall.Credential{Uid: 65534, Gid: 65534}, "front", arguments...)
				if have, err := get(front.addr); err != nil || have != "refuge" {
					t.Errorf("want refuge, have %q, %v", have, err)
				}
				if done := front.stop(); done.fallbacks != string(test.fallback)+": 1" {
					t.Errorf("want %q, have %+v", test.fallback, done)
				}
			})
		}
	}
}

// TestInvariant4AnotherUsersToken has a front of another user that knows the token: the backend takes nothing from it.
func TestInvariant4AnotherUsersToken(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	directory, err := os.MkdirTemp("", "segue-broker-") // not t.TempDir, whose parent only its owner may enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(directory)
	socket := filepath.Join(directory, "handoff")
	bare := []string{"-bare", "-token", strings.Repeat("0f", handoff.TokenSize)}
	backend := startBackendAt(t, socket, "127.0.0.1:0", bare...)
	if err := errors.Join(os.Chmod(directory, 0o755), os.Chmod(socket, 0o777)); err != nil {
		t.Fatal(err)
	}
	front := startAs(t, &syscall.Credential{Uid: 65534, Gid: 65534}, "front", append(bare, "-listen", "127.0.0.1:0", "-backend", socket)...)
	if have, err := get(front.addr); err == nil {
		t.Errorf("want no answer, have %q", have)
	}
	backend.await(`broker is not served any more.*peer has uid 65534, want 0`)
}

// TestInvariant3FullBacklog has a backend whose socket's queue is full, so that not even a dial succeeds.
func TestInvariant3FullBacklog(t *testing.T) {
	for _, arguments := range [][]string{nil, {"-bare", "-token", strings.Repeat("0f", handoff.TokenSize)}} {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		socket := filepath.Join(t.TempDir(), "handoff")
		if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket}), syscall.Listen(fd, 0)); err != nil {
			t.Fatal(err)
		}
		for filled := false; !filled; {
			conn, err := net.DialTimeout("unix", socket, time.Second)
			if filled = err != nil; !filled {
				defer conn.Close()
			}
		}
		front := start(t, "front", append([]string{"-listen", "127.0.0.1:0", "-backend", socket, "-reconnect", refuge(t)}, arguments...)...)
		for range 12 {
			if have, err := get(front.addr); err != nil || have != "refuge" {
				t.Fatalf("%v: want refuge, have %q, %v", arguments, have, err)
			}
		}
		if done := front.stop(); done.reconnected != 12 || !strings.Contains(done.fallbacks, string(handoff.FallbackAckTimeout)) {
			t.Errorf("%v: want 12 reconnected, have %+v", arguments, done)
		}
	}
}
