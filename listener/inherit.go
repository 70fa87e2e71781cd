package listener

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
)

// Socket is one named descriptor on its way between two generations.
type Socket struct {
	Name    string   // the user's name for it, 1 to 255 bytes
	Kind    Kind     // what it is
	Network string   // as asked for: "tcp", "tcp4", "unixgram", ...; empty for files
	Address string   // where it is bound (getsockname), as net.Addr prints it: "[::]:43125", "/run/app.sock"; empty for files
	File    *os.File // owned by whoever holds the Socket
}

// heirloom is an inherited socket that nobody has claimed yet, with what the kernel says of it.
type heirloom struct {
	Socket
	bound bound
}

// close closes the descriptor, unless it was claimed.
func (h *heirloom) close() {
	if h.File != nil {
		_ = h.File.Close() // nothing was written to it
	}
}

// Inherit gives the Set a socket of a predecessor, for Listen, ListenPacket or File to claim by its name. It takes ownership of
// sock.File in every case, and closes it if it fails.
//
// It checks that the descriptor is what the Socket says: its type, that it listens (SO_ACCEPTCONN, where the platform tells), that its
// family fits Network, and that it is bound to Address. Otherwise it fails with [ErrIdentity]. A second socket of one
// name is [ErrNameTaken]. The protocol is not compared: package net opens MPTCP sockets for "tcp" by default where it
// can, and MPTCP or TCP makes no difference to their use.
func (s *Set) Inherit(sock Socket) (err error) {
	h := &heirloom{Socket: sock}
	defer func() {
		if err != nil {
			h.close()
			err = fmt.Errorf("listener: inherit %s socket %s (%s %s): %w", clip(string(sock.Kind)), clip(sock.Name), clip(sock.Network), clip(sock.Address), err)
		}
	}()
	if !canInherit {
		return errors.ErrUnsupported
	}
	if err := checkName(sock.Name); err != nil {
		return fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if sock.File == nil {
		return fmt.Errorf("%w: no descriptor", ErrIdentity)
	}
	if err := closeOnExec(sock.File); err != nil {
		return fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if h.bound, err = identify(sock); err != nil {
		return fmt.Errorf("%w: %w", ErrIdentity, err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if m, ok := s.members[sock.Name]; ok && (m == nil || !m.gone()) {
		return ErrNameTaken
	}
	if _, ok := s.inherited[sock.Name]; ok {
		return ErrNameTaken
	}
	if s.inherited == nil {
		s.inherited = make(map[string]*heirloom)
	}
	s.inherited[sock.Name] = h
	if path := h.bound.path; isPath(path) {
		s.remember(absolute(path), false)
	}
	return nil
}

// identify asks the kernel what the descriptor is, and compares that with what the Socket says. The two are compared as
// claims of a stranger: the error says what differs.
func identify(sock Socket) (bound, error) {
	if sock.Kind == KindFile {
		return bound{}, nil
	}
	if !slices.Contains(networks[sock.Kind], sock.Network) {
		return bound{}, ErrNetwork
	}
	b, err := inspect(sock.File)
	if err != nil {
		return bound{}, err
	}
	switch {
	case !b.family(sock.Network):
		err = fmt.Errorf("descriptor is a %s socket", b.network)
	case sock.Kind == KindListener && !b.listening:
		err = errors.New("socket does not listen")
	case sock.Address == "" || b.address() != sock.Address:
		err = fmt.Errorf("socket is bound to %q", b.address())
	}
	return b, err
}

// CloseUnclaimed closes the inherited sockets that nobody has asked for, logs one line for each and returns their names, sorted.
// A program calls it when it has opened all that it needs. Files of Unix sockets among them are not unlinked here, for
// the predecessor may still use them, but by Close.
func (s *Set) CloseUnclaimed() []string {
	s.mu.Lock()
	unclaimed := s.inherited
	s.inherited = nil
	s.mu.Unlock()

	var names []string
	for name := range unclaimed {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		h := unclaimed[name]
		h.close()
		s.logger().Info("inherited socket is not used any more: closed", "name", name,
			"kind", string(h.Kind), "network", h.Network, "address", h.Address)
	}
	return names
}

// Sockets duplicates everything that was opened or claimed and is not closed, sorted by name, for a successor. The caller
// owns the duplicates (close-on-exec) and closes them. What is inherited and unclaimed is not among them.
//
// Pass the descriptors on with SyscallConn or Fd; Fd leaves these files' descriptors as they are, because they
// were non-blocking when os.NewFile got them.
func (s *Set) Sockets() ([]Socket, error) {
	if !canInherit {
		return nil, fmt.Errorf("listener: duplicate sockets: %w", errors.ErrUnsupported)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("listener: duplicate sockets: %w", net.ErrClosed)
	}
	var list []Socket
	for _, m := range s.members {
		if m == nil {
			continue // being opened
		}
		sock, err := m.socket()
		if errors.Is(err, net.ErrClosed) {
			continue
		}
		if err != nil {
			for _, sock := range list {
				_ = sock.File.Close()
			}
			return nil, fmt.Errorf("listener: duplicate %v: %w", m.request, err)
		}
		list = append(list, sock)
	}
	slices.SortFunc(list, func(a, b Socket) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
