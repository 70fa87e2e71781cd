//go:build linux

package restart

import (
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/segue-go/segue/internal/scm"
	"github.com/segue-go/segue/listener"
)

// A rollback has lost what its successor was in the middle of, and not what had ended before.
func TestLostIsWhatHadNotEnded(t *testing.T) {
	for _, test := range []struct {
		name        string
		happens     func(t *testing.T, there *listener.Strays, c *listener.Conn, client net.Conn)
		clean, lost int
	}{
		{"nothing", func(*testing.T, *listener.Strays, *listener.Conn, net.Conn) {}, 1, 0},
		{"a request", func(t *testing.T, _ *listener.Strays, c *listener.Conn, client net.Conn) {
			if _, err := client.Write([]byte("GET")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}, 0, 1},
		{"the client hangs up", func(t *testing.T, _ *listener.Strays, c *listener.Conn, client net.Conn) {
			client.Close()
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("want EOF, have %v", err)
			}
			c.Close()
			c.Close() // as servers do
		}, 0, 0},
		{"the successor cuts it", func(_ *testing.T, there *listener.Strays, _ *listener.Conn, _ net.Conn) { there.CloseConns() }, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, c, client := detachable(t)
			list, err := listener.DetachConns(c)
			if err != nil {
				t.Fatal(err)
			}
			e, err := newEscrow()
			if err != nil {
				t.Fatal(err)
			}
			granted := moving{Detached: list[0]}
			e.issue(&granted)
			e.hold([]moving{granted})
			fd, err := unix.FcntlInt(uintptr(granted.Descriptor.FD()), unix.F_DUPFD_CLOEXEC, 3)
			if err != nil {
				t.Fatal(err)
			}
			var there listener.Strays // the successor's
			adopted, err := there.AdoptConn(&listener.Detached{Descriptor: scm.NewDescriptor(fd), Slot: e.ledger.Slot(granted.slot - 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer adopted.NetConn().Close() // the ledger is gone then
			test.happens(t, &there, adopted, client)
			clean, lost := e.recover()
			if len(clean) != test.clean || lost != test.lost {
				t.Errorf("want %d clean and %d lost, have %d and %d", test.clean, test.lost, len(clean), lost)
			}
			for _, c := range clean {
				_ = c.Close()
			}
		})
	}
}
