package handoff

import (
	"errors"
	"fmt"

	"github.com/segue-go/segue/internal/wire"
)

// Version is the newest version of the protocol that this package speaks.
const Version = 1

var (
	// ErrMalformed says that a frame's body is not what its type asks for.
	ErrMalformed = wire.ErrMalformed
	// ErrTooLarge says that a frame is larger than the limit in force.
	ErrTooLarge = wire.ErrTooLarge
	// ErrUnknownMessage says that a frame has a type that this version does not know.
	ErrUnknownMessage = errors.New("unknown message type")
	// ErrUnexpectedMessage says that a peer sent a message that has no place here.
	ErrUnexpectedMessage = errors.New("unexpected message")
)

// Message is one frame of the protocol. The types below are all there are; doc.go says who sends which when.
type Message interface{ kind() uint8 }

// The frame types of version 1.
const (
	kindHello uint8 = 1 + iota
	kindWelcome
	kindRefuse
	kindOffer
	kindAck
	kindGrant
	kindReady
	kindPing
	kindPong
	kindCommit
	kindCommitted
	kindRollback
	kindBye
	kindCounted
	kindAnnounce
	kindRelay
)

// Hello opens a session: the successor says what it speaks and proves that it was chosen.
type Hello struct {
	Version      uint64   `cbor:"1,keyasint"`
	Capabilities []string `cbor:"2,keyasint,omitempty"`
	Token        Token    `cbor:"3,keyasint"`
	PID          int      `cbor:"4,keyasint,omitempty"`
}

// Welcome admits a successor: the version and the capabilities that both sides have.
type Welcome struct {
	Version      uint64   `cbor:"1,keyasint"`
	Capabilities []string `cbor:"2,keyasint,omitempty"`
	// Generation is the number of the successor in the chain.
	Generation uint64 `cbor:"3,keyasint"`
	Limits     Limits `cbor:"4,keyasint"`
	PID        int    `cbor:"5,keyasint,omitempty"`
}

// Limits is what the sender of a Welcome accepts.
type Limits struct {
	Body        int `cbor:"1,keyasint"` // bytes of a frame's body
	Descriptors int `cbor:"2,keyasint"` // descriptors beside one offer
	// Credit is that of Ack before the first one. It counts with CapabilityBroker only.
	Credit uint32 `cbor:"3,keyasint,omitempty"`
}

// Refuse ends a session that did not become one.
type Refuse struct {
	Reason Reason `cbor:"1,keyasint"`
	Detail string `cbor:"2,keyasint,omitempty"`
}

// Grant passes ownership of what was acknowledged: the successor may accept, read and write from here.
type Grant struct {
	Offers []uint64 `cbor:"1,keyasint,omitempty"`
}

// Announce tells a client by which token it will know who serves it.
type Announce struct {
	Token       Token  `cbor:"1,keyasint"`
	Correlation uint64 `cbor:"2,keyasint,omitempty"`
}

// Relay tells a client, on the same connection, who serves it from here.
type Relay struct {
	// Token echoes the Announce.
	Token Token `cbor:"1,keyasint"`
	// Backend says that it is the backend, and was handed the connection; else it is the front, which says why.
	Backend     bool   `cbor:"2,keyasint,omitempty"`
	Reason      Reason `cbor:"3,keyasint,omitempty"`
	Correlation uint64 `cbor:"4,keyasint,omitempty"`
}

// Ready says that the successor's application has started.
type Ready struct {
	// Probation is how long it wants to serve before it asks for the commit, in milliseconds.
	Probation uint32 `cbor:"1,keyasint,omitempty"`
	// Credit is for how many connections the successor has room. It counts with CapabilityEscrow only.
	Credit uint32 `cbor:"2,keyasint,omitempty"`
}

// Ping asks for the Pong with the same number.
type Ping struct {
	Number uint64 `cbor:"1,keyasint"`
}

// Pong answers a Ping.
type Pong struct {
	Number uint64 `cbor:"1,keyasint"`
	// Credit is as in Ready, now, and beside what was offered until now.
	Credit uint32 `cbor:"2,keyasint,omitempty"`
}

// Commit asks the predecessor to decide.
type Commit struct{}

// Committed is the decision.
type Committed struct{}

// Rollback is the other decision. A successor sends it to ask for it.
type Rollback struct {
	Reason Reason `cbor:"1,keyasint"`
	Detail string `cbor:"2,keyasint,omitempty"`
}

// Bye is a predecessor's last message: it has drained. A backend's is that it takes no more offers, and closes.
type Bye struct {
	// Upgrade says that an upgrade was asked of the predecessor after it had handed over; the successor serves it.
	Upgrade bool `cbor:"1,keyasint,omitempty"`
	// Stop says that the predecessor was asked to stop when it had just handed over; the successor stops.
	Stop bool `cbor:"2,keyasint,omitempty"`
}

func (*Hello) kind() uint8     { return kindHello }
func (*Welcome) kind() uint8   { return kindWelcome }
func (*Refuse) kind() uint8    { return kindRefuse }
func (*Offer) kind() uint8     { return kindOffer }
func (*Ack) kind() uint8       { return kindAck }
func (*Grant) kind() uint8     { return kindGrant }
func (*Ready) kind() uint8     { return kindReady }
func (*Ping) kind() uint8      { return kindPing }
func (*Pong) kind() uint8      { return kindPong }
func (*Commit) kind() uint8    { return kindCommit }
func (*Committed) kind() uint8 { return kindCommitted }
func (*Rollback) kind() uint8  { return kindRollback }
func (*Bye) kind() uint8       { return kindBye }
func (*Counted) kind() uint8   { return kindCounted }
func (*Announce) kind() uint8  { return kindAnnounce }
func (*Relay) kind() uint8     { return kindRelay }

// messages makes an empty message of each type.
var messages = map[uint8]func() Message{
	kindHello:     func() Message { return new(Hello) },
	kindWelcome:   func() Message { return new(Welcome) },
	kindRefuse:    func() Message { return new(Refuse) },
	kindOffer:     func() Message { return new(Offer) },
	kindAck:       func() Message { return new(Ack) },
	kindGrant:     func() Message { return new(Grant) },
	kindReady:     func() Message { return new(Ready) },
	kindPing:      func() Message { return new(Ping) },
	kindPong:      func() Message { return new(Pong) },
	kindCommit:    func() Message { return new(Commit) },
	kindCommitted: func() Message { return new(Committed) },
	kindRollback:  func() Message { return new(Rollback) },
	kindBye:       func() Message { return new(Bye) },
	kindCounted:   func() Message { return new(Counted) },
	kindAnnounce:  func() Message { return new(Announce) },
	kindRelay:     func() Message { return new(Relay) },
}

func decodeMessage(kind uint8, body []byte) (Message, error) {
	empty, known := messages[kind]
	if !known {
		return nil, fmt.Errorf("%w: %d", ErrUnknownMessage, kind)
	}
	message := empty()
	if err := wire.Decode(kind, body, message); err != nil {
		return nil, err
	}
	if bounded, ok := message.(interface{ check() error }); ok {
		return message, bounded.check()
	}
	return message, nil
}
