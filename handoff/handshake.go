package handoff

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/segue-go/segue/internal/wire"
)

// ErrVersion says that the two sides have no version of the protocol in common.
var ErrVersion = errors.New("no common protocol version")

// Capabilities of version 1. Unknown ones are ignored; a side uses only what both have.
const (
	CapabilityListeners = "listeners" // listening sockets
	CapabilityPackets   = "packets"   // packet sockets
	CapabilityFiles     = "files"     // plain files
	CapabilityState     = "state"     // inline values
	// CapabilityConnections is that of live connections, offered after the commit.
	CapabilityConnections = "connections"
	// CapabilityEscrow is that of live connections that are offered on probation, can be taken back until the commit, and are no more
	// than the successor has credit for. It needs a ledger, which is memory that two processes share.
	CapabilityEscrow = "escrow"
	// CapabilityParts is that of inline values in several entries, because they are larger than MaxData.
	CapabilityParts = "parts"
	// CapabilityCounters is that of counters: entries of that kind, and COUNTED.
	CapabilityCounters = "counters"
	// CapabilityBroker is that of a session in which a front hands connections to a backend, and no generation leaves.
	CapabilityBroker = "broker"
)

func capabilities() []string {
	return []string{
		CapabilityListeners, CapabilityPackets, CapabilityFiles, CapabilityState, CapabilityConnections, CapabilityEscrow,
		CapabilityParts, CapabilityCounters,
	}
}

// refusalTimeout is how long a refusal may take to be written to a peer that perhaps does not read.
const refusalTimeout = 200 * time.Millisecond

// broker makes it a session of a front and a backend.
func (s *Session) broker() { s.capabilities, s.together = []string{CapabilityBroker}, true }

// Connect is the successor's side of the handshake. It fails with ErrRefused (a *RefusedError) when the predecessor says
// no, io.EOF when it is gone, ErrVersion or ErrUnexpectedMessage when its answer makes no sense.
func (s *Session) Connect(ctx context.Context, token Token) (*Welcome, error) {
	s.body = wire.MaxBody
	hello := &Hello{Version: Version, Capabilities: s.capabilities, Token: token, PID: os.Getpid()}
	if err := s.Send(ctx, hello); err != nil {
		return nil, err
	}
	message, err := s.Receive(ctx)
	if err != nil {
		return nil, err
	}
	switch answer := message.(type) {
	case *Welcome:
		if answer.Version < 1 || answer.Version > Version {
			return nil, fmt.Errorf("%w: predecessor chose %d, offered 1 to %d", ErrVersion, answer.Version, Version)
		}
		return answer, nil
	case *Refuse:
		return nil, &RefusedError{Sentinel: ErrRefused, Reason: answer.Reason, Detail: answer.Detail}
	default:
		return nil, Unexpected("WELCOME", message)
	}
}

// Admit is the predecessor's side: it reads the HELLO, consumes its token from tokens, and welcomes the successor as the
// given generation. Whoever is not admitted is sent a REFUSE, and the error says why: the errors of TokenStore.Redeem,
// ErrVersion, or those of Receive.
func (s *Session) Admit(ctx context.Context, tokens *TokenStore, expected Token, generation int) (*Hello, error) {
	return s.welcome(ctx, Welcome{Generation: uint64(generation)}, func(shown Token) error {
		return tokens.Redeem(expected, shown.Expose())
	})
}

// welcome reads the HELLO, and answers it with a completed answer if verify finds its token good.
func (s *Session) welcome(ctx context.Context, answer Welcome, verify func(shown Token) error) (*Hello, error) {
	hello, err := s.greeted(ctx, verify)
	if err != nil {
		refusal, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalTimeout)
		defer cancel()
		_ = s.Send(refusal, &Refuse{Reason: ReasonFor(err), Detail: err.Error()}) // it may be gone already
		return nil, err
	}
	s.body = wire.MaxBody
	common := slices.DeleteFunc(hello.Capabilities, func(name string) bool { return !slices.Contains(s.capabilities, name) })
	hello.Capabilities = common
	answer.Version, answer.Capabilities, answer.PID = min(hello.Version, Version), common, os.Getpid()
	answer.Limits.Body, answer.Limits.Descriptors = wire.MaxBody, MaxDescriptors
	return hello, s.Send(ctx, &answer)
}

func (s *Session) greeted(ctx context.Context, verify func(shown Token) error) (*Hello, error) {
	message, err := s.Receive(ctx)
	if err != nil {
		return nil, err
	}
	hello, ok := message.(*Hello)
	if !ok {
		return nil, Unexpected("HELLO", message)
	}
	// The token comes first: a stranger learns nothing about versions.
	if err := verify(hello.Token); err != nil {
		return nil, err
	}
	if hello.Version < 1 {
		return nil, fmt.Errorf("%w: successor offers %d, want 1 at least", ErrVersion, hello.Version)
	}
	return hello, nil
}

// Unexpected makes the ErrUnexpectedMessage for a message that came where another was due.
func Unexpected(want string, have Message) error {
	if offer, ok := have.(*Offer); ok {
		_ = offer.Close()
	}
	return fmt.Errorf("%w: want %s, have %T", ErrUnexpectedMessage, want, have)
}
