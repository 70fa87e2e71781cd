//go:build linux || darwin || freebsd

package handoff

import (
	"context"
	"errors"
	"net"
	"testing"
)

// What came after a message of which only a part was sent would be read as the rest of it.
func TestNothingFollowsAMessageThatWasCutOff(t *testing.T) {
	for _, test := range []struct {
		name string
		send func(*Session, net.Conn, Message) error
	}{
		{"Send", func(s *Session, peer net.Conn, m Message) error {
			ctx, cancel := context.WithCancel(bounded(t))
			go func() {
				_, _ = peer.Read(make([]byte, 1))
				cancel()
			}()
			return s.Send(ctx, m)
		}},
		{"sendNow", func(s *Session, _ net.Conn, m Message) error { return s.sendNow(m) }},
	} {
		own, peer := pair(t)
		s := NewSession(own)
		defer s.Close()
		defer peer.Close()
		if err := own.SetWriteBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		if err := test.send(s, peer, &Grant{Offers: make([]uint64, 500_000)}); !errors.Is(err, ErrCutOff) {
			t.Fatalf("%s: want ErrCutOff, have %v", test.name, err)
		}
		go drainAll(peer)
		for _, again := range []error{s.sendNow(&Bye{}), s.Send(bounded(t), &Bye{})} {
			if !errors.Is(again, ErrCutOff) {
				t.Errorf("%s: what follows: want ErrCutOff, have %v", test.name, again)
			}
		}
	}
}

func drainAll(conn net.Conn) {
	for buffer := make([]byte, 64<<10); ; {
		if _, err := conn.Read(buffer); err != nil {
			return
		}
	}
}
