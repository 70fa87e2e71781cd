package listener

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
)

var (
	// ErrIdentity says that a descriptor is not what its [Socket] claims.
	ErrIdentity = errors.New("descriptor is not the socket it claims to be")

	// ErrNameTaken says that the Set has another socket or file of that name.
	ErrNameTaken = errors.New("name is taken")

	// ErrNetwork says that the call does not know the network.
	ErrNetwork = errors.New("unknown network")
)

// Kind says what a [Socket] is. The values are part of the protocol between generations.
type Kind string

const (
	KindListener Kind = "listener" // accepts connections
	KindPacket   Kind = "packet"   // receives datagrams
	KindFile     Kind = "file"     // anything else
)

// networks lists what each kind of socket is opened with.
var networks = map[Kind][]string{
	KindListener: {"tcp", "tcp4", "tcp6", "unix", "unixpacket"},
	KindPacket:   {"udp", "udp4", "udp6", "unixgram"},
}

// maxName is the longest name of a socket, in bytes.
const maxName = 255

func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("name of %d bytes, want 1 to %d: %w", len(name), maxName, os.ErrInvalid)
	}
	return nil
}

// request is what the user asked for.
type request struct {
	kind    Kind
	name    string
	network string
	address string
}

func (r request) String() string {
	if r.kind == KindFile {
		return "file " + clip(r.name)
	}
	return fmt.Sprintf("%s %s on %s %s", r.kind, clip(r.name), r.network, r.address)
}

// clip quotes a string that may come from anywhere, and shortens it, for error messages.
func clip(s string) string {
	if len(s) > 120 {
		s = s[:117] + "..."
	}
	return strconv.Quote(s)
}

// member is what a Set knows of one open socket or file. Everything in it is constant.
type member struct {
	request
	set       *Set
	inherited bool
	inner     interface {
		syscall.Conn
		io.Closer
	}
	gate *gate // nil for files
}

// close closes the socket, sends home who waits at its gate, and gives its name back.
func (m *member) close() error {
	err := m.inner.Close()
	if m.gate != nil {
		m.gate.close()
	}
	m.set.forget(m)
	return err
}

// gone reports whether the user has closed a file behind the Set's back. (Listeners and packet sockets tell it.)
func (m *member) gone() bool {
	return m.kind == KindFile && control(m.inner, func(uintptr) {}) != nil
}

// socket duplicates the member for a successor. It returns net.ErrClosed if the user has closed it.
func (m *member) socket() (Socket, error) {
	file, err := dup(m.inner, m.name)
	if err != nil {
		return Socket{}, err
	}
	s := Socket{Name: m.name, Kind: m.kind, Network: m.network, File: file}
	if m.kind != KindFile {
		b, err := inspect(file)
		if err != nil {
			_ = file.Close()
			return Socket{}, err
		}
		s.Address = b.address()
	}
	return s, nil
}

// reserve takes a name until release or publish, and returns the heirloom of that name if there is one.
func (s *Set) reserve(name string) (*heirloom, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if m, taken := s.members[name]; taken && (m == nil || !m.gone()) {
		return nil, ErrNameTaken
	}
	if s.members == nil {
		s.members = make(map[string]*member)
	}
	s.members[name] = nil
	return s.inherited[name], nil
}

func (s *Set) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members[name] == nil {
		delete(s.members, name)
	}
}

// inherit makes h a member. It reports false if h is not there any more.
func (s *Set) inherit(r request, h *heirloom, get func(request, *heirloom) (*member, error)) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inherited[r.name] != h {
		return false, nil
	}
	m, err := get(r, h)
	if err != nil {
		return false, err
	}
	delete(s.inherited, r.name)
	h.close()
	s.add(m)
	return true, nil
}

// publish makes a fresh m a member, unless the Set was closed meanwhile.
func (s *Set) publish(m *member) (bool, error) {
	s.mu.Lock()
	if !s.closed {
		defer s.mu.Unlock()
		if m.isPath() {
			s.remember(m.address, true)
		}
		s.add(m)
		return true, nil
	}
	s.mu.Unlock()
	if m.isPath() {
		_ = os.Remove(m.address) // bound a moment ago, and known to nobody
	}
	_ = m.close()
	return false, net.ErrClosed
}

// add enters m under its reserved name. The caller holds mu. Nobody uses m yet, so its gate can be shut without waiting.
func (s *Set) add(m *member) {
	s.members[m.name] = m
	if s.paused && m.gate != nil {
		m.gate.shutFor(bySet)
	}
}

// forget ends the membership of m, if it is one.
func (s *Set) forget(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members[m.name] == m {
		delete(s.members, m.name)
	}
}

// control is Control of c, and net.ErrClosed if c is closed.
func control(c syscall.Conn, f func(fd uintptr)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if raw.Control(f) != nil {
		// It fails for no other reason (internal/poll: RawControl), but for an os.File the error is not os.ErrClosed.
		return net.ErrClosed
	}
	return nil
}
