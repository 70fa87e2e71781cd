//go:build linux || darwin || freebsd

package handoff

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// said makes what a front and a backend say to a client.
func said(t *testing.T, messages ...Message) string {
	t.Helper()
	var text strings.Builder
	for _, message := range messages {
		frame, _, _, err := new(Session).encode(message)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(frame)
	}
	return text.String()
}

func TestDialerReconnectsUnlessTheBackendIsTheRightOne(t *testing.T) {
	token, other := parse(t, secret), parse(t, []byte("fedcba9876543210"))
	for _, test := range []struct {
		name string
		says string // then the backend goes on, unless there is an "…": then nobody does
		want error
		ends bool // the front closes
	}{
		{"served", said(t, &Announce{Token: token}, &Relay{Token: token, Backend: true}), nil, false},
		{"served by the second that was tried", said(t, &Announce{Token: other}, &Announce{Token: token}, &Relay{Token: token, Backend: true}), nil, false},
		{"served by the first after all", said(t, &Announce{Token: other}, &Announce{Token: token}, &Relay{Token: other, Backend: true}), ErrTokenMismatch, false},
		{"wrong echo", said(t, &Announce{Token: token}, &Relay{Token: other, Backend: true}), ErrTokenMismatch, false},
		{"no echo", said(t, &Announce{Token: token}, &Relay{Backend: true}), ErrTokenMissing, false},
		{"no token", said(t, &Announce{}, &Relay{Backend: true}), ErrTokenMissing, false},
		{"not announced", said(t, &Relay{Token: token, Backend: true}), ErrTokenMismatch, false},
		{"declined", said(t, &Announce{Token: token}, &Relay{Token: token, Reason: ReasonTimeout}), ErrRefused, false},
		{"ends", said(t, &Announce{Token: token}), io.EOF, true},
		{"ends within a message", said(t, &Announce{Token: token})[:9], io.ErrUnexpectedEOF, true},
		{"says nothing more", said(t, &Announce{Token: token}) + "…", ErrAckTimeout, false},
		{"says nothing", "…", ErrAckTimeout, false},
		{"announces for ever", strings.Repeat(said(t, &Announce{Token: token}), 100), ErrUnexpectedMessage, false},
		{"another message", said(t, &Bye{}), ErrUnexpectedMessage, false},
		{"another protocol", "HTTP/1.1 400 Bad Request\r\n\r\n", ErrTooLarge, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			text, silent := strings.CutSuffix(test.says, "…")
			timeout := 20 * time.Second
			if silent {
				timeout = 20 * time.Millisecond
			}
			c, own := client(t)
			if !silent && !test.ends {
				text += "and then the backend's own"
			}
			dialer := &Dialer{
				Timeout: timeout,
				Front: func(context.Context) (net.Conn, error) {
					_, _ = io.WriteString(c.Conn, text)
					if !silent {
						c.Conn.Close()
					}
					return own, nil
				},
				Reconnect: func(context.Context) (net.Conn, error) { return nil, net.ErrClosed },
			}
			conn, failed, err := dialer.Dial(t.Context())
			if !errors.Is(failed, test.want) || (failed == nil) != (test.want == nil) {
				t.Fatalf("want %v, have %v", test.want, failed)
			}
			if test.want != nil {
				if !errors.Is(err, net.ErrClosed) { // of Reconnect
					t.Errorf("want Reconnect's, have %v, %v", conn, err)
				}
				return
			}
			if rest, err := io.ReadAll(conn); err != nil || string(rest) != "and then the backend's own" {
				t.Errorf("want all that follows, have %q, %v", rest, err)
			}
		})
	}
}

// The whole way: front, backend, and a client that is told; and one that is told that nobody has taken it.
func TestRelayThroughPoolAndBackend(t *testing.T) {
	listener, path := listen(t)
	backend := &Backend{Service: "web", Adopt: func(c *Client) (func(bool), error) {
		return func(bool) {
			_, _ = io.WriteString(c.Conn, "backend")
			c.Conn.Close()
		}, nil
	}}
	served := make(chan error, 1)
	go func() {
		conn, err := listener.AcceptUnix()
		if err == nil {
			err = backend.ServeConn(context.Background(), conn)
		}
		served <- err
	}()
	pool := &Pool{Path: path}
	for _, service := range []string{"web", "mail"} {
		dialer := &Dialer{
			Front: func(context.Context) (net.Conn, error) {
				c, own := client(t)
				c.Service, c.Relay = service, true
				pool.Offer(c, func(err error) {
					if err != nil {
						if err := c.Decline(err); err != nil {
							t.Error(err)
						}
					}
					c.Conn.Close()
				})
				return own, nil
			},
			Reconnect: func(context.Context) (net.Conn, error) {
				near, far := net.Pipe()
				go func() {
					_, _ = io.WriteString(far, "reconnect")
					far.Close()
				}()
				return near, nil
			},
		}
		conn, failed, err := dialer.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		have, err := io.ReadAll(conn)
		want := map[string]string{"web": "backend", "mail": "reconnect"}[service]
		if err != nil || string(have) != want || (failed == nil) != (service == "web") || failed != nil && !errors.Is(failed, ErrRefused) {
			t.Errorf("%s: want %s, have %q, %v, %v", service, want, have, failed, err)
		}
	}
	pool.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
