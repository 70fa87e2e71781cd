//go:build linux || darwin || freebsd

package restart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cloudflare/tableflip"

	"github.com/segue-go/segue/handoff"
)

func newSpawner(options Options) (spawner, error) { return newSpawnerInPlace(options) }

const (
	slotSocket = "segue-socket"
	slotToken  = "segue-token"

	// spawnMargin is by how much tableflip is more patient than an attempt, which knows better why it gives up.
	spawnMargin = time.Minute
)

// spawnPatience is when tableflip ends a successor that an attempt could not end. An attempt can where it finds a successor that
// has not said HELLO; elsewhere tableflip has to, and then a successor whose probation is longer than ours is at a disadvantage.
func spawnPatience(options Options) time.Duration {
	if canFindProcess {
		return 2*options.UpgradeTimeout + MaxProbation + spawnMargin
	}
	return 2*options.UpgradeTimeout + options.Probation + spawnMargin
}

// spawnerInPlace has tableflip start the successor: the same program with the same arguments in the same directory.
type spawnerInPlace struct {
	tableflip *tableflip.Upgrader

	mu     sync.Mutex // guards the slots
	socket *slot
	token  *slot
	left   *inheritance
}

func newSpawnerInPlace(options Options) (*spawnerInPlace, error) {
	if err := checkTableflipEnvironment(); err != nil {
		return nil, err
	}
	if err := makeArgumentZeroAbsolute(); err != nil {
		return nil, err
	}
	upgrader, err := tableflip.New(tableflip.Options{
		UpgradeTimeout: spawnPatience(options),
	})
	closeTableflipLeaks()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInherited, err)
	}
	s := &spawnerInPlace{tableflip: upgrader}
	if upgrader.HasParent() {
		err = s.inherit()
	} else {
		err = s.makeSlots()
	}
	return s, err
}

// startDirectory is where the process was started, before main could change it. tableflip starts successors there.
var startDirectory, _ = os.Getwd()

// makeArgumentZeroAbsolute lets a program that was started by a relative path, and has changed its directory since, find
// itself again: tableflip looks for os.Args[0] from the current directory. A name without a slash is searched in PATH.
func makeArgumentZeroAbsolute() error {
	program := os.Args[0]
	if filepath.Base(program) == program || filepath.IsAbs(program) {
		return nil
	}
	if startDirectory == "" {
		return fmt.Errorf("%w: program %q is relative to a directory that is not known", ErrInherited, program)
	}
	os.Args[0] = filepath.Join(startDirectory, program)
	return nil
}

func (s *spawnerInPlace) makeSlots() (err error) {
	if s.socket, err = newSlot(s.tableflip.Fds, slotSocket); err != nil {
		return err
	}
	s.token, err = newSlot(s.tableflip.Fds, slotToken)
	return err
}

func (s *spawnerInPlace) inherit() error {
	socket, slot, err := inheritSlot(s.tableflip.Fds, slotSocket)
	if err != nil {
		return err
	}
	s.socket = slot
	token, slot, err := inheritSlot(s.tableflip.Fds, slotToken)
	if err != nil {
		_ = socket.Close()
		return err
	}
	s.token = slot
	defer token.Close()
	secret, err := io.ReadAll(io.LimitReader(token, handoff.TokenSize+1))
	if err == nil {
		s.left = &inheritance{socket: socket}
		s.left.token, err = handoff.ParseToken(secret)
	}
	if err != nil {
		_ = socket.Close()
		return fmt.Errorf("%w: token: %w", ErrInherited, err)
	}
	return nil
}

func (s *spawnerInPlace) inherited() *inheritance { return s.left }

func (s *spawnerInPlace) check() error {
	if _, err := exec.LookPath(os.Args[0]); err != nil {
		return fmt.Errorf("%w: %w", ErrSpawn, err)
	}
	return nil
}

func (s *spawnerInPlace) spawn(socket, token *os.File) (*spawned, error) {
	s.mu.Lock()
	err := errors.Join(s.socket.fill(socket), s.token.fill(token))
	s.mu.Unlock()
	if err != nil {
		s.sealed()
		return nil, fmt.Errorf("%w: %w", ErrSpawn, err)
	}
	successor := &spawned{done: make(chan struct{})}
	go func() {
		defer close(successor.done)
		// After a success there is nothing to seal: tableflip has closed its files, and their numbers are others'.
		if successor.err = spawnError(s.upgrade()); successor.err != nil {
			s.sealed()
		}
	}()
	return successor, nil
}

// upgrade asks tableflip, and asks again while tableflip has not noticed yet what this process knows already: that it is
// ready itself, and that its predecessor has gone. Both reach tableflip's own goroutine through channels that it reads in
// any order (upgrader.go, run), and nothing tells when it has.
func (s *spawnerInPlace) upgrade() error {
	const tries = 200
	for try := 1; ; try++ {
		err := s.tableflip.Upgrade()
		if err == nil || try == tries {
			return err
		}
		if text := err.Error(); text != "process is not ready yet" && text != "parent hasn't exited" {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// spawnError types tableflip's errors, which are texts.
func spawnError(err error) error {
	if err == nil {
		return nil
	}
	switch text := err.Error(); {
	case strings.HasPrefix(text, "can't start child"):
		return fmt.Errorf("%w: %w", ErrSpawn, err)
	case text == "upgrade in progress": // one that could not be ended
		return fmt.Errorf("%w: %w", ErrUpgradeInProgress, err)
	case text == "parent hasn't exited":
		return fmt.Errorf("%w: %w", ErrPredecessorDraining, err)
	case text == "already upgraded", text == "process is not ready yet":
		return fmt.Errorf("%w: %w", ErrSpawn, err)
	case strings.HasSuffix(text, "timed out"):
		return fmt.Errorf("%w: %w", ErrUpgradeTimeout, err)
	default:
		return fmt.Errorf("%w: %w", ErrSuccessorExited, err)
	}
}

func (s *spawnerInPlace) sealed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.socket.empty()
	s.token.empty()
}

func (s *spawnerInPlace) ready() error { return s.tableflip.Ready() }

func (s *spawnerInPlace) waitPredecessor(ctx context.Context) error {
	return s.tableflip.WaitForParent(ctx)
}

func (s *spawnerInPlace) stop() { s.tableflip.Stop() }
