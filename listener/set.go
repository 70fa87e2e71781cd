package listener

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// Set is the named sockets and files of one process. The zero value is ready to use. All methods may be called by several goroutines
// at once. A Set must not be copied after first use.
type Set struct {
	// ListenConfig opens sockets. For inherited ones, its KeepAlive and KeepAliveConfig are applied to the connections
	// they accept; what Control has set belongs to the socket and came with it. Set it before the first call.
	ListenConfig net.ListenConfig

	// Logger gets one line for each socket that is bound anew although one of its name was inherited, and for each that
	// nobody claimed. Nil means slog.Default().
	Logger *slog.Logger

	ended atomic.Uint64 // see Ended

	mu        sync.Mutex // guards the rest
	members   map[string]*member
	inherited map[string]*heirloom
	paths     map[string]socketFile // files of Unix sockets that Close unlinks, as they were when bound or inherited
	paused    bool
	closed    bool
}

// Listen returns the inherited listener of that name, if it fits network and address (see the package documentation), or opens
// one with ListenConfig. The network is "tcp", "tcp4", "tcp6", "unix" or "unixpacket"; the address is that of [net.Listen], and a
// relative path is resolved now. A leftover file of a Unix socket that nobody listens on any more is replaced (not on Windows); two
// processes that do this to one path in the same instant can harm each other, as with any program that removes such files.
//
// The context bounds the lookup of names. Errors: [ErrNetwork], [ErrNameTaken], [net.ErrClosed] after Close or Leave,
// and those of [net.ListenConfig.Listen].
func (s *Set) Listen(ctx context.Context, name, network, address string) (*Listener, error) {
	var l *Listener
	err := s.open(ctx, request{KindListener, name, network, address}, func(r request, h *heirloom) (*member, error) {
		inner, err := claim(h, func() (net.Listener, error) { return s.ListenConfig.Listen(ctx, r.network, r.address) }, net.FileListener)
		if err != nil {
			return nil, err
		}
		l = newListener(s, r, inner.(acceptor), h != nil)
		return &l.member, nil
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ListenPacket returns the inherited packet socket of that name, if it fits network and address, or opens one: [Set.Listen] for
// "udp", "udp4", "udp6" and "unixgram".
func (s *Set) ListenPacket(ctx context.Context, name, network, address string) (*PacketConn, error) {
	var p *PacketConn
	err := s.open(ctx, request{KindPacket, name, network, address}, func(r request, h *heirloom) (*member, error) {
		inner, err := claim(h, func() (net.PacketConn, error) { return s.ListenConfig.ListenPacket(ctx, r.network, r.address) }, net.FilePacketConn)
		if err != nil {
			return nil, err
		}
		p = newPacketConn(s, r, inner.(datagram), h != nil)
		return &p.member, nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// File returns the inherited file of that name, or the one that open returns. A nil open means that only an inherited one will
// do: without one the error is [fs.ErrNotExist].
//
// The caller may close the file; then the Set forgets it. The Set closes it in Close.
// Both processes share its offset and its status flags.
func (s *Set) File(name string, open func() (*os.File, error)) (*os.File, error) {
	var f *os.File
	err := s.open(context.Background(), request{kind: KindFile, name: name}, func(r request, h *heirloom) (*member, error) {
		switch {
		case h != nil:
			f, h.File = h.File, nil
		case open == nil:
			return nil, fs.ErrNotExist
		default:
			var err error
			if f, err = open(); err != nil {
				return nil, err
			}
			if f == nil {
				return nil, fmt.Errorf("open returned no file: %w", os.ErrInvalid)
			}
		}
		return &member{request: r, set: s, inherited: h != nil, inner: f}, nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// open is what Listen, ListenPacket and File have in common. get makes the member from an heirloom that fits (it is called with
// the Set locked then) or, if h is nil, anew.
func (s *Set) open(ctx context.Context, r request, get func(r request, h *heirloom) (*member, error)) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("listener: open %v: %w", r, err)
		}
	}()
	if err := r.check(); err != nil {
		return err
	}
	if r, err = r.absolute(); err != nil {
		return err
	}
	h, err := s.reserve(r.name)
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			s.release(r.name)
		}
	}()
	if h != nil {
		fits, err := r.fits(ctx, h)
		if err != nil {
			return err
		}
		if fits {
			done, err = s.inherit(r, h, get)
			if done || err != nil {
				return err
			}
			h = nil // closed in the meantime
		} else {
			s.logger().Warn("inherited socket is not what is asked for now: opening another", "name", r.name,
				"network", r.network, "address", r.address, "inherited_network", h.Network, "inherited_address", h.Address)
		}
	}
	m, err := get(r, nil)
	if errors.Is(err, syscall.EADDRINUSE) && r.isPath() && removeLeftover(ctx, r.network, r.address) {
		m, err = get(r, nil)
	}
	if err != nil {
		if h != nil {
			err = fmt.Errorf("%w (the inherited %s of that name, %s %s, does not fit)", err, h.Kind, h.Network, h.Address)
		}
		return err
	}
	done, err = s.publish(m)
	return err
}

// Ended returns how many connections, of all its listeners, were closed in this process until now: not those that were detached, and not
// those with which Listener.Adopt failed.
func (s *Set) Ended() uint64 { return s.ended.Load() }

// Pause pauses every listener and packet socket, also those that are opened later, until Resume. It returns when no
// Accept can take a connection and no reader a datagram any more. See [Listener.Pause] and [PacketConn.Pause].
func (s *Set) Pause() {
	var gates []*gate
	s.mu.Lock()
	s.paused = true
	for _, m := range s.members {
		if m != nil && m.gate != nil {
			m.gate.shutFor(bySet) // under the lock, so that a Resume comes wholly before or after
			gates = append(gates, m.gate)
		}
	}
	s.mu.Unlock()
	for _, g := range gates {
		g.await()
	}
}

// Resume ends what Pause began. What was paused by its own Pause stays so.
func (s *Set) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = false
	for _, m := range s.members {
		if m != nil && m.gate != nil {
			m.gate.openFor(bySet)
		}
	}
}

// Leave is for a process that another one has taken over from, or that gives up before it has taken over itself: the sockets
// are the other's. Listeners are closed, and what nobody has claimed. Packet sockets are not read any more ([net.ErrClosed]), but
// can be written until Close: what was asked can be answered. Files stay open until Close. Nothing is ever unlinked, not by a later
// Close either. Accepted connections stay open. Nothing can be opened any more.
func (s *Set) Leave() error {
	return s.end(func(m *member) error {
		if m.kind == KindListener {
			return m.close()
		}
		if m.gate != nil {
			m.gate.end()
		}
		return nil
	})
}

// Close closes everything, but for accepted connections. Unless Leave or its like was called before, this process is the last to have the
// sockets: the files of those Unix sockets that this Set bound or inherited are removed, if they are still those files. Abstract
// names have no file.
func (s *Set) Close() error {
	return errors.Join(s.unlink(func(socketFile) bool { return true }), s.end((*member).close))
}

// Abandon is Leave for a process that gives up before it has taken over: the files of sockets that it has bound itself, which
// nobody else has, are removed as well.
func (s *Set) Abandon() error {
	return errors.Join(s.unlink(func(f socketFile) bool { return f.own }), s.Leave())
}

// Retire is Leave for the last process that has the sockets, which stops: the files of Unix sockets are removed as by Close.
func (s *Set) Retire() error {
	return errors.Join(s.unlink(func(socketFile) bool { return true }), s.Leave())
}

// unlink removes files of Unix sockets, if they are still those that were bound or inherited. It does so before the sockets are
// closed, so that no moment exists in which another process sees a file as a leftover and binds its path anew.
func (s *Set) unlink(which func(socketFile) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	var errs []error
	for path, file := range s.paths {
		if which(file) {
			errs = append(errs, unlinkSocket(path, file.info))
		}
	}
	return errors.Join(errs...)
}

// end makes the Set useless, and does what is to be done with each member.
func (s *Set) end(part func(*member) error) error {
	s.mu.Lock()
	s.closed = true
	members := make([]*member, 0, len(s.members))
	for _, m := range s.members {
		if m != nil { // else it is being opened: publish will see that the Set is closed
			members = append(members, m)
		}
	}
	inherited := s.inherited
	s.inherited = nil
	s.mu.Unlock()

	for _, h := range inherited {
		h.close()
	}
	var errs []error
	for _, m := range members {
		if err := part(m); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, fs.ErrClosed) {
			errs = append(errs, fmt.Errorf("listener: close %v: %w", m.request, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Set) logger() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}
