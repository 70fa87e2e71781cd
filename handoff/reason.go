package handoff

import (
	"errors"
	"fmt"
	"strconv"
)

// Reason is why a peer refused or rolled back, as a word on the wire. A newer peer may send words that are not listed
// here; they are kept.
type Reason string

// The reasons of version 1.
const (
	ReasonToken       Reason = "token"       // HELLO without the expected token
	ReasonVersion     Reason = "version"     // no version in common
	ReasonMalformed   Reason = "malformed"   // not this protocol
	ReasonUnexpected  Reason = "unexpected"  // a message out of order
	ReasonKind        Reason = "kind"        // an entry of a kind that is not known here
	ReasonIdentity    Reason = "identity"    // a descriptor that is not what its entry says
	ReasonDescriptors Reason = "descriptors" // descriptors missing, too many, truncated
	ReasonPermission  Reason = "permission"  // not a process that may do this
	ReasonUnhealthy   Reason = "unhealthy"   // the health check failed
	ReasonTimeout     Reason = "timeout"     // took too long
	ReasonStopped     Reason = "stopped"     // asked to stop
	ReasonService     Reason = "service"     // of a service that is not here
	ReasonFailed      Reason = "failed"      // any other failure, see the detail
)

// ErrRefused says that the peer refused. The error is a *RefusedError.
var ErrRefused = errors.New("refused by peer")

// ErrRolledBack says that the peer ended an upgrade before its commit. The error is a *RefusedError.
var ErrRolledBack = errors.New("rolled back by peer")

// RefusedError is a peer's answer that is a no.
type RefusedError struct {
	Sentinel error // ErrRefused or ErrRolledBack
	Reason   Reason
	Detail   string
}

const printedDetail = 256

// Error quotes what the peer said, shortened: it is the peer's text.
func (e *RefusedError) Error() string {
	detail := e.Detail
	if len(detail) > printedDetail {
		detail = detail[:printedDetail]
	}
	text := fmt.Sprintf("%v: %s", e.Sentinel, strconv.Quote(string(e.Reason[:min(len(e.Reason), printedDetail)])))
	if detail != "" {
		text += ": " + strconv.Quote(detail)
	}
	return text
}

// Unwrap returns the sentinel.
func (e *RefusedError) Unwrap() error { return e.Sentinel }

// ReasonFor finds the word for an error of this package.
func ReasonFor(err error) Reason {
	for _, known := range []struct {
		sentinel error
		reason   Reason
	}{
		{ErrTokenMissing, ReasonToken}, {ErrTokenLength, ReasonToken}, {ErrTokenMismatch, ReasonToken},
		{ErrTokenNotPending, ReasonToken}, {ErrTokenExpired, ReasonToken},
		{ErrVersion, ReasonVersion},
		{ErrMalformed, ReasonMalformed}, {ErrTooLarge, ReasonMalformed}, {ErrUnknownMessage, ReasonMalformed}, {ErrOffer, ReasonMalformed},
		{ErrUnexpectedMessage, ReasonUnexpected},
		{ErrDescriptorCount, ReasonDescriptors}, {ErrTruncated, ReasonDescriptors}, {ErrControlMessage, ReasonDescriptors},
		{ErrDescriptorPressure, ReasonDescriptors},
		{ErrFrameTimeout, ReasonTimeout}, {ErrAckTimeout, ReasonTimeout},
	} {
		if errors.Is(err, known.sentinel) {
			return known.reason
		}
	}
	return ReasonFailed
}
