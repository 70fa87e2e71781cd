package handoff

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
)

// Fallback is why a client is served by reconnect and not by handoff. The empty Fallback is none.
type Fallback string

// All there are.
const (
	FallbackClientUnsupported  Fallback = "client unsupported"
	FallbackPolicyDisabled     Fallback = "service policy disabled" // or the platform or the service cannot do it
	FallbackDescriptorPressure Fallback = "descriptor pressure"
	FallbackRateLimited        Fallback = "failed-attempt rate limited"
	FallbackPermissionDenied   Fallback = "permission denied"
	FallbackIntegrityMismatch  Fallback = "integrity mismatch"
	FallbackAckTimeout         Fallback = "ack timeout"
	FallbackAdoptedBackend     Fallback = "adopted backend"
)

// SafeToHide reports whether the client need not be told: it is, for every reason there is. A handoff is an
// optimization, and one that fails is no error of the client's.
func (f Fallback) SafeToHide() bool {
	switch f {
	case FallbackClientUnsupported, FallbackPolicyDisabled, FallbackDescriptorPressure, FallbackRateLimited,
		FallbackPermissionDenied, FallbackIntegrityMismatch, FallbackAckTimeout, FallbackAdoptedBackend:
		return true
	}
	return false // not one of this package's
}

// Class is what a failed attempt says about the peer. The empty Class says nothing: there was no attempt, or the peer
// answered as it should.
type Class string

// All there are.
const (
	ClassPermissionDenied  Class = "permission denied"
	ClassIntegrityMismatch Class = "integrity mismatch"
	ClassAckTimeout        Class = "ack timeout"
)

// Classify says what an attempt that failed with err means, "" for nil. What is not known here counts as ClassAckTimeout:
// whatever happened, no ack came.
func Classify(err error) Class {
	class, _ := classify(err)
	return class
}

// FallbackFor says why the client of an attempt that failed with err is served by reconnect, "" for nil.
func FallbackFor(err error) Fallback {
	_, fallback := classify(err)
	return fallback
}

func classify(err error) (Class, Fallback) {
	if err == nil {
		return "", ""
	}
	var no *declined
	if errors.As(err, &no) {
		return "", no.decision.Fallback
	}
	var refused *RefusedError
	if errors.As(err, &refused) {
		return classifyRefusal(refused.Reason)
	}
	for _, known := range failures {
		if errors.Is(err, known.sentinel) {
			return known.class, known.fallback
		}
	}
	return ClassAckTimeout, FallbackAckTimeout
}

// failures are looked through from first to last, because an error may wrap several.
var failures = []struct {
	sentinel error
	class    Class
	fallback Fallback
}{
	{ErrAckTimeout, ClassAckTimeout, FallbackAckTimeout},
	{ErrPolicy, "", FallbackPolicyDisabled},
	{context.Canceled, "", FallbackPolicyDisabled}, // by this side
	// Pressure passes, and says nothing about the peer.
	{ErrDescriptorPressure, "", FallbackDescriptorPressure},
	{ErrTokenStoreFull, "", FallbackDescriptorPressure},
	{ErrTruncated, "", FallbackDescriptorPressure},
	{syscall.ETOOMANYREFS, "", FallbackDescriptorPressure},
	{syscall.EMFILE, "", FallbackDescriptorPressure},
	{syscall.ENFILE, "", FallbackDescriptorPressure},
	{ErrUnavailable, ClassAckTimeout, FallbackAckTimeout},
	{ErrWouldBlock, ClassAckTimeout, FallbackAckTimeout},
	{ErrSendFailed, ClassAckTimeout, FallbackAckTimeout},
	{ErrTokenMissing, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrTokenLength, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrTokenMismatch, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrTokenNotPending, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrTokenExpired, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrTokenCollision, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrRefused, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrRolledBack, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrAck, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrVersion, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrMalformed, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrTooLarge, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrUnknownMessage, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrUnexpectedMessage, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrDescriptorCount, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{ErrControlMessage, ClassIntegrityMismatch, FallbackIntegrityMismatch},
	{fs.ErrPermission, ClassPermissionDenied, FallbackPermissionDenied},
	{errors.ErrUnsupported, "", FallbackPolicyDisabled},
}

// classifyRefusal reads a peer's no. A no to what the peer cannot take, or not now, is an answer of a peer that works.
func classifyRefusal(reason Reason) (Class, Fallback) {
	switch reason {
	case ReasonKind, ReasonService, ReasonUnhealthy, ReasonStopped:
		return "", FallbackPolicyDisabled
	case ReasonDescriptors:
		return "", FallbackDescriptorPressure
	case ReasonPermission:
		return ClassPermissionDenied, FallbackPermissionDenied
	case ReasonTimeout:
		return ClassAckTimeout, FallbackAckTimeout
	default:
		return ClassIntegrityMismatch, FallbackIntegrityMismatch
	}
}
