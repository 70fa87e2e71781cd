package listener

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// splicer copies in the kernel, from one socket into a pipe and from there into the other. Package net does, too, but what is in its pipe
// is lost when writing ends at a deadline. This one knows what is in its own, and can take it out.
//
// It has a pipe only while something is in it: the readiness of a socket comes first.
type splicer struct {
	way      *way
	from, to syscall.RawConn
	take     func(fd uintptr) bool // fromSocket, made once
	give     func(fd uintptr) bool // toSocket
	pipe     *pipe                 // nil if nothing is in it
	unable   bool                  // the kernel cannot splice these
	n        int                   // of the last call
	err      error
}

func (s *splicer) init(w *way, from, to stream) {
	var err error
	if s.from, err = from.SyscallConn(); err != nil {
		return
	}
	if s.to, err = to.SyscallConn(); err != nil {
		return
	}
	s.way, s.take, s.give = w, s.fromSocket, s.toSocket
}

func (s *splicer) able() bool { return s.way != nil }

// fill is way.fill.
func (s *splicer) fill() error {
	if err := s.from.Read(s.take); err != nil {
		return err
	}
	switch {
	case s.err != nil:
		return s.err
	case s.n == 0:
		return io.EOF
	}
	return nil
}

// fromSocket reports false if it has to be called again when something has come.
func (s *splicer) fromSocket(fd uintptr) bool {
	if !s.unable {
		if p := pipes.get(); p != nil {
			s.n, s.err = retryCall(func() (int, error) {
				n, err := unix.Splice(int(fd), nil, p.w, nil, RelayChunk, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
				return int(n), err
			})
			if s.err == nil && s.n > 0 {
				p.n, s.pipe = s.n, p
				return true
			}
			pipes.put(p)
			switch s.err {
			case unix.EAGAIN: // that of the socket, for the pipe was empty
				return false
			case unix.EINVAL, unix.EOPNOTSUPP:
				s.unable = true
			default:
				s.err = os.NewSyscallError("splice", s.err)
				return true
			}
		}
	}
	// No pipe is free, or none is of use.
	w := s.way
	w.buffer = chunks.Get().(*chunk)
	s.n, s.err = retryCall(func() (int, error) { return unix.Read(int(fd), w.buffer[:]) })
	if s.n > 0 && s.err == nil {
		w.pending = w.buffer[:s.n]
		return true
	}
	w.drop()
	if s.err == unix.EAGAIN {
		return false
	}
	s.err = os.NewSyscallError("read", s.err)
	return true
}

// flush is way.flush.
func (s *splicer) flush() error {
	w := s.way
	for len(w.pending) > 0 || s.pipe != nil {
		s.n, s.err = 0, nil
		err := s.to.Write(s.give)
		if err == nil {
			err = s.err
		}
		if err != nil {
			return err
		}
	}
	w.drop()
	return nil
}

// toSocket reports false if it has to be called again when there is room.
func (s *splicer) toSocket(fd uintptr) bool {
	w := s.way
	// Whoever knows of an error from the kernel, which tells it once, also finds it noted: see way.finish.
	w.mu.Lock()
	defer w.mu.Unlock()
	name := "splice"
	if len(w.pending) > 0 {
		name = "write"
		s.n, s.err = retryCall(func() (int, error) { return unix.Write(int(fd), w.pending) })
	} else {
		s.n, s.err = retryCall(func() (int, error) {
			n, err := unix.Splice(s.pipe.r, nil, int(fd), nil, s.pipe.n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			return int(n), err
		})
	}
	if s.err == unix.EAGAIN {
		s.err = nil
		return false
	}
	if s.err != nil {
		s.err = w.breaks(os.NewSyscallError(name, s.err))
		return true
	}
	w.wrote(s.n)
	if len(w.pending) > 0 {
		w.pending = w.pending[s.n:]
		return true
	}
	if s.pipe.n -= s.n; s.pipe.n == 0 {
		pipes.put(s.pipe)
		s.pipe = nil
	}
	return true
}

// discard lets go of what cannot be written any more.
func (s *splicer) discard() {
	if s.pipe != nil {
		pipes.put(s.pipe)
		s.pipe = nil
	}
}

// reclaim takes out what is in the pipe, behind what is pending.
func (s *splicer) reclaim(pending []byte) []byte {
	if s.pipe == nil {
		return pending
	}
	left := append(make([]byte, 0, len(pending)+s.pipe.n), pending...)
	left = left[:cap(left)]
	for s.pipe.n > 0 {
		n, err := retryCall(func() (int, error) { return unix.Read(s.pipe.r, left[len(left)-s.pipe.n:]) })
		if n <= 0 || err != nil {
			break
		}
		s.pipe.n -= n
	}
	s.discard()
	return left
}

// retryCall makes a system call again that a signal has interrupted. It never returns less than 0.
func retryCall(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
