//go:build linux

package listener

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// scripted is a connection whose first Read is made up.
type scripted struct {
	*net.TCPConn
	first func(p []byte) (int, error)
}

func (s *scripted) Read(p []byte) (int, error) {
	if first := s.first; first != nil {
		s.first = nil
		return first(p)
	}
	return s.TCPConn.Read(p)
}

// Whoever asks for a connection gets one answer, also if all that comes in that instant is a line end which is skipped.
func TestAskedConnectionAnswersWhenALineEndComes(t *testing.T) {
	for _, test := range []struct {
		name  string
		stays bool
		wakes bool
	}{{"moves", false, false}, {"stays", true, false}, {"is interrupted", true, true}} {
		t.Run(test.name, func(t *testing.T) {
			ln := must(net.Listen("tcp", "127.0.0.1:0"))(t)
			defer ln.Close()
			client := must(net.Dial("tcp", ln.Addr().String()))(t)
			defer client.Close()
			var conns roster
			inner := &scripted{TCPConn: must(ln.Accept())(t).(*net.TCPConn)}
			c := newConn(inner)
			conns.enter(c)
			defer c.Close()
			var answers []*Detached
			inner.first = func(p []byte) (int, error) {
				asked := conns.ask(1, func(d *Detached, asked bool) {
					if answers = append(answers, d); !asked {
						t.Error("want the answer to a question, have a connection that came by itself")
					}
				})
				if asked != 1 {
					t.Errorf("want 1 connection asked, have %d", asked)
				}
				if test.stays {
					conns.retain()
				}
				if test.wakes {
					c.Interrupt()
				}
				return copy(p, "\r\n"), nil
			}
			c.boundary.newlines = maxNewlines
			c.MarkFresh()
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			want := io.EOF
			switch {
			case test.wakes:
				want = ErrInterrupted
			case test.stays:
				want = os.ErrDeadlineExceeded
			}
			if _, err := c.Read(make([]byte, serverBuffer)); !errors.Is(err, want) {
				t.Errorf("want %v, have %v", want, err)
			}
			if len(answers) != 1 || (answers[0] == nil) != test.stays {
				t.Errorf("want one answer, have %v", answers)
			}
			for _, d := range answers {
				if d != nil {
					_ = d.Close()
				}
			}
		})
	}
}
