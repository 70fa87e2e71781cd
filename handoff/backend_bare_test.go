//go:build linux || darwin || freebsd

package handoff

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// A connection that a backend cannot take is lost, and nothing else: those behind it have been taken by the kernel, and nobody else serves them.
func TestInvariant3OneBareConnectionDoesNotCostOthers(t *testing.T) {
	token := parse(t, secret)
	for _, test := range []struct {
		name   string
		end    func(t *testing.T, front, own *net.TCPConn)
		refuse error // of Adopt, for the first
	}{
		{"client hung up", func(t *testing.T, front, own *net.TCPConn) {
			_ = own.SetLinger(0)
			own.Close()
			if _, err := front.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
		}, nil},
		{"no descriptors left", func(*testing.T, *net.TCPConn, *net.TCPConn) {}, ErrDescriptorPressure},
		{"refused", func(*testing.T, *net.TCPConn, *net.TCPConn) {}, &RefusedError{Sentinel: ErrRefused, Reason: ReasonStopped}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := openDescriptors(t)
			t.Run("", func(t *testing.T) {
				refuse := test.refuse
				backend := &Backend{Bare: token.Verify, Adopt: func(c *Client) (func(bool), error) {
					if err := refuse; err != nil {
						refuse = nil
						return nil, err
					}
					return func(bool) {
						_, _ = io.WriteString(c.Conn, "hello")
						c.Conn.Close()
					}, nil
				}}
				from, to := pair(t)
				first, ended := client(t)
				second, own := client(t)
				test.end(t, first.Conn.(*net.TCPConn), ended.(*net.TCPConn))
				for _, c := range []*Client{first, second} {
					if err := SendBare(from, token, c.Conn.(*net.TCPConn)); err != nil {
						t.Fatal(err)
					}
					c.Conn.Close()
				}
				from.Close()
				if err := backend.ServeConn(bounded(t), to); err != nil {
					t.Error(err)
				}
				_ = own.SetReadDeadline(time.Now().Add(20 * time.Second))
				if have, err := io.ReadAll(own); err != nil || string(have) != "hello" {
					t.Errorf("the second client: want hello, have %q, %v", have, err)
				}
				if test.refuse == nil {
					return
				}
				_ = ended.SetReadDeadline(time.Now().Add(20 * time.Second))
				if have, err := io.ReadAll(ended); err != nil || len(have) > 0 {
					t.Errorf("the first client: want it closed, have %q, %v", have, err)
				}
			})
			if after := openDescriptors(t); after != before {
				t.Errorf("descriptors: want %d, have %d", before, after)
			}
		})
	}
}

// A backend that leaves serves what a front was told that it has sent, but a front that does not stop sending does not keep it.
func TestInvariant3And7BareBackendThatLeavesServesWhatWasSent(t *testing.T) {
	token := parse(t, secret)
	ctx, leave := context.WithCancel(t.Context())
	full := make(chan struct{})
	served := 0
	backend := &Backend{Bare: token.Verify, Adopt: func(c *Client) (func(bool), error) {
		if served == 0 {
			<-full
			leave()
		}
		served++
		return func(bool) { c.Conn.Close() }, nil
	}}
	from, to := pair(t)
	c, _ := client(t)
	sending := c.Conn.(*net.TCPConn) // one and the same: it is the attempts that are counted
	type outcome struct {
		queued, sent int // until the socket was full, and at all
		err          error
	}
	ended := make(chan outcome, 1)
	go func() {
		var o outcome
		for late := time.Now().Add(20 * time.Second); time.Now().Before(late); {
			switch o.err = SendBare(from, token, sending); {
			case o.err == nil:
				o.sent++
				continue
			case !errors.Is(o.err, ErrWouldBlock):
				ended <- o
				return
			}
			if o.queued == 0 {
				o.queued = o.sent
				close(full)
			}
			runtime.Gosched()
		}
		ended <- o
	}()
	done := make(chan error, 1)
	go func() { done <- backend.ServeConn(ctx, to) }()
	if err := fate(t, done); err != nil {
		t.Error(err)
	}
	o := <-ended
	if !errors.Is(o.err, ErrUnavailable) || Reached(o.err) {
		t.Errorf("after it has left: want ErrUnavailable, have %v", o.err)
	}
	if served < o.queued || served > o.sent || fenceKeeps && served != o.sent {
		t.Errorf("want all served of %d that were queued, and of %d that were sent, have %d", o.queued, o.sent, served)
	}
}
