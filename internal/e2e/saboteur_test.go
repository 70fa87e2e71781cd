//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/scm"
	"github.com/segue-go/segue/internal/wire"
)

// sabotage is what is to go wrong in an upgrade, and when. A successor finds it in a file.
type sabotage struct {
	Moment moment
	Fault  fault
}

type moment string

const (
	beforeReady   moment = "before ready"
	duringOffers  moment = "during offers"
	beforeGrant   moment = "between ACK and GRANT"
	afterRequests moment = "after some requests"
	beforeCommit  moment = "just before commit"
)

type fault string

const (
	killed    fault = "SIGKILL"
	stopped   fault = "SIGSTOP"
	panics    fault = "panic"
	exits     fault = "exit(0)"
	unhealthy fault = "failed health"
	garbage   fault = "garbage frame"
	// These are the predecessor's.
	predecessorKilled  fault = "SIGKILL of the predecessor"
	predecessorStopped fault = "SIGSTOP of the predecessor"
)

func (c config) sabotageFile() string { return filepath.Join(c.Dir, "sabotage") }

// saboteur sits between a successor and its predecessor, inside the successor's process, passes on what they say to each other,
// and does its work at the moment it is told. A nil one does nothing.
type saboteur struct {
	sabotage
	predecessor int
	application *net.UnixConn // to the package under test
	session     *net.UnixConn // to the predecessor

	once       sync.Once
	done       chan struct{} // closed: the damage is done
	ready      atomic.Bool   // READY was said
	sick       atomic.Bool
	readyAt    atomic.Int64 // when READY was said, in ns since 1970
	requests   atomic.Int64
	probation  time.Duration
	forwarding sync.Mutex // one frame at a time to the predecessor
}

// The types of frames that it knows (handoff/doc.go).
const (
	frameOffer  = 4
	frameAck    = 5
	frameGrant  = 6
	frameReady  = 7
	frameCommit = 10
)

// requestsServed is which request a successor on probation does not live to answer.
const requestsServed = 20

// infiltrate puts a saboteur between this successor and its predecessor, if there is a file that says so.
func infiltrate(cfg config) (*saboteur, error) {
	content, err := os.ReadFile(cfg.sabotageFile())
	if err != nil {
		return nil, nil
	}
	s := &saboteur{predecessor: os.Getppid(), probation: cfg.Probation, done: make(chan struct{})}
	if err := json.Unmarshal(content, &s.sabotage); err != nil {
		return nil, err
	}
	number, err := upgradeSocket()
	if err != nil {
		return nil, err
	}
	original, err := unix.FcntlInt(uintptr(number), unix.F_DUPFD_CLOEXEC, 100)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(original), "session")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	s.session = conn.(*net.UnixConn)
	local, remote, err := scm.Pair()
	if err != nil {
		return nil, err
	}
	defer remote.Close()
	s.application = local
	if err := unix.Dup3(int(remote.Fd()), number, 0); err != nil {
		return nil, err
	}
	go s.relay(s.application, s.session, s.said)
	go s.relay(s.session, s.application, s.heard)
	return s, nil
}

// upgradeSocket finds the one Unix socket that tableflip has left to this process.
func upgradeSocket() (int, error) {
	for fd := 3; fd < 64; fd++ {
		family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err == nil && family == unix.AF_UNIX {
			return fd, nil
		}
	}
	return -1, errors.New("no upgrade socket")
}

// relay passes frames on, each after what is to be done before it.
func (s *saboteur) relay(from, to *net.UnixConn, before func(kind uint8, body []byte)) {
	ctx := context.Background()
	for {
		frame, token, descriptors, err := receiveFrame(ctx, from)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				slog.Warn("saboteur", "error", err)
			}
			_ = to.CloseWrite()
			return
		}
		before(frame[4], frame[wire.HeaderSize:])
		if to == s.session {
			s.forwarding.Lock()
		}
		err = scm.Send(ctx, to, frame, nil)
		if err == nil && token != nil {
			err = scm.Send(ctx, to, token, descriptors)
		}
		if to == s.session {
			s.forwarding.Unlock()
		}
		for _, fd := range descriptors {
			_ = unix.Close(fd)
		}
		if err != nil {
			slog.Warn("saboteur", "error", err) // the reader of the other direction sees the end as well
		}
	}
}

// receiveFrame reads a frame, and for an offer what comes beside it.
func receiveFrame(ctx context.Context, from *net.UnixConn) (frame, token []byte, descriptors []int, err error) {
	var header [wire.HeaderSize]byte
	if _, err := scm.Receive(ctx, from, header[:], 0); err != nil {
		return nil, nil, nil, err
	}
	kind, length, err := wire.ParseHeader(header, wire.MaxBody)
	if err != nil {
		return nil, nil, nil, err
	}
	frame = append(header[:], make([]byte, length)...)
	if length > 0 {
		if _, err := scm.Receive(ctx, from, frame[wire.HeaderSize:], 0); err != nil {
			return nil, nil, nil, err
		}
	}
	if kind != frameOffer {
		return frame, nil, nil, nil
	}
	var offer struct {
		Count int `cbor:"3,keyasint"`
	}
	if err := wire.Unmarshal(frame[wire.HeaderSize:], &offer); err != nil || offer.Count == 0 {
		return frame, nil, nil, err
	}
	token = make([]byte, handoff.TokenSize)
	received, err := scm.Receive(ctx, from, token, offer.Count)
	if err != nil {
		return nil, nil, nil, err
	}
	for i := range received.Len() {
		descriptors = append(descriptors, received.Take(i))
	}
	return frame, token, descriptors, nil
}

// said sees what the successor is about to say.
func (s *saboteur) said(kind uint8, _ []byte) {
	switch kind {
	case frameReady:
		s.act(beforeReady)
		s.ready.Store(true)
		s.readyAt.Store(time.Now().UnixNano())
	case frameAck:
		if s.ready.Load() && s.atPredecessor() {
			s.act(beforeGrant) // it is to have no time to grant
		}
	case frameCommit:
		s.act(beforeCommit)
	}
}

// heard sees what the predecessor has said.
func (s *saboteur) heard(kind uint8, body []byte) {
	switch kind {
	case frameOffer:
		if s.ready.Load() {
			s.act(duringOffers)
		}
	case frameGrant:
		var grant handoff.Grant
		if wire.Unmarshal(body, &grant) == nil && len(grant.Offers) > 0 && !s.atPredecessor() {
			s.act(beforeGrant)
		}
	}
}

// handler sees the requests that the successor gets on probation.
func (s *saboteur) handler(next http.Handler) http.Handler {
	if s == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("n") && s.requests.Add(1) == requestsServed {
			s.act(afterRequests)
		}
		next.ServeHTTP(w, r)
	})
}

// healthy is the successor's health.
func (s *saboteur) healthy(ctx context.Context) error {
	if s == nil {
		return nil
	}
	if s.Moment == afterRequests {
		select {
		case <-s.done: // it is to be before the commit, however slowly the requests come
		case <-ctx.Done():
		}
	}
	if s.Fault == unhealthy && s.Moment == beforeCommit && time.Since(time.Unix(0, s.readyAt.Load())) >= s.probation {
		s.act(beforeCommit) // the last check, or nearly: the probation began after READY
	}
	if s.sick.Load() {
		return errors.New("the test says so")
	}
	return nil
}

func (s *saboteur) atPredecessor() bool { return strings.HasSuffix(string(s.Fault), "predecessor") }

// act does the damage, if this is the moment.
func (s *saboteur) act(now moment) {
	if now != s.Moment {
		return
	}
	s.once.Do(func() {
		defer close(s.done)
		slog.Warn("sabotage", "moment", string(now), "fault", string(s.Fault))
		switch s.Fault {
		case killed:
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		case stopped:
			stopSelf()
		case panics:
			go panic("the test says so") // net/http would catch it
			select {}
		case exits:
			os.Exit(0)
		case unhealthy:
			s.sick.Store(true)
		case garbage:
			s.forwarding.Lock()
			defer s.forwarding.Unlock()
			_, _ = s.session.Write(slices.Repeat([]byte{0xff}, 64))
		case predecessorKilled:
			_ = syscall.Kill(s.predecessor, syscall.SIGKILL)
			awaitStates(s.predecessor, "XZ")
		case predecessorStopped:
			_ = syscall.Kill(s.predecessor, syscall.SIGSTOP)
			awaitStates(s.predecessor, "T")
		}
		slog.Warn("sabotaged") // if it is still alive
	})
}

// awaitStates returns when a process is in one of these states, or gone. Nothing tells a process that is not the parent.
func awaitStates(pid int, states string) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		text := string(content)
		if strings.ContainsAny(text[strings.LastIndexByte(text, ')')+2:][:1], states) {
			return
		}
	}
}
