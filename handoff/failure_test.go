package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// system is an error as package net returns it.
func system(call string, errno syscall.Errno) error {
	return &net.OpError{Op: "x", Net: "unix", Err: os.NewSyscallError(call, errno)}
}

// fallbacks is every Fallback but the empty one.
var fallbacks = []Fallback{
	FallbackClientUnsupported, FallbackPolicyDisabled, FallbackDescriptorPressure, FallbackRateLimited,
	FallbackPermissionDenied, FallbackIntegrityMismatch, FallbackAckTimeout, FallbackAdoptedBackend,
}

func TestFailureOfDial(t *testing.T) {
	for _, test := range []struct {
		cause error
		want  error
	}{
		{system("connect", syscall.ENOENT), ErrUnavailable},
		{system("connect", syscall.ENOTDIR), ErrUnavailable},
		{system("connect", syscall.ECONNREFUSED), ErrUnavailable},
		{system("connect", syscall.EPROTOTYPE), ErrUnavailable},
		{system("connect", syscall.EINVAL), ErrUnavailable},
		{system("connect", syscall.EACCES), ErrPermission},
		{system("connect", syscall.EPERM), ErrPermission},
		{system("connect", syscall.EAGAIN), ErrWouldBlock},
		{context.DeadlineExceeded, ErrWouldBlock},
		{system("socket", syscall.EMFILE), ErrDescriptorPressure},
		{system("socket", syscall.ENFILE), ErrDescriptorPressure},
		{system("socket", syscall.ENOSYS), ErrUnsupported},
	} {
		have := dialFailure("/path", test.cause)
		if have.Sentinel != test.want || have.Reached || have.Descriptor != -1 || have.Socket != "/path" || !errors.Is(have, test.cause) {
			t.Errorf("%v: want %v, have %+v", test.cause, test.want, have)
		}
	}
}

func TestFailureOfSend(t *testing.T) {
	for _, test := range []struct {
		name    string
		taken   int
		cause   error
		want    error
		reached bool
	}{
		{"all taken", TokenSize, nil, nil, false},
		{"short", 7, nil, ErrSendFailed, true},
		{"nothing taken", 0, nil, ErrSendFailed, false},
		{"taken, but", 1, system("sendmsg", syscall.EIO), ErrSendFailed, true},
		{"full", 0, system("sendmsg", syscall.EAGAIN), ErrWouldBlock, false},
		{"full on a BSD", 0, system("sendmsg", syscall.ENOBUFS), ErrWouldBlock, false},
		{"full on darwin", 0, system("sendmsg", syscall.EMSGSIZE), ErrWouldBlock, false},
		{"closed", 0, system("sendmsg", syscall.EPIPE), ErrUnavailable, false},
		{"reset", 0, system("sendmsg", syscall.ECONNRESET), ErrUnavailable, false},
		{"refused", 0, system("sendmsg", syscall.ECONNREFUSED), ErrUnavailable, false},
		{"not connected", 0, system("sendmsg", syscall.ENOTCONN), ErrUnavailable, false},
		{"shut down", 0, system("sendmsg", syscall.ESHUTDOWN), ErrUnavailable, false},
		{"forbidden", 0, system("sendmsg", syscall.EPERM), ErrPermission, false},
		{"forbidden too", 0, system("sendmsg", syscall.EACCES), ErrPermission, false},
		{"in flight", 0, system("sendmsg", syscall.ETOOMANYREFS), ErrDescriptorPressure, false},
		{"not open", 0, system("sendmsg", syscall.EBADF), ErrSendFailed, false},
		{"no socket of ours", 0, errors.ErrUnsupported, ErrUnsupported, false},
	} {
		err := sendFailure("/path", 7, test.taken, test.cause)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, err)
		}
		if Reached(err) != test.reached {
			t.Errorf("%s: want reached %v, have %+v", test.name, test.reached, err)
		}
		if test.want == nil {
			continue
		}
		var failure *Failure
		if !errors.As(err, &failure) || failure.Descriptor != 7 || failure.Socket != "/path" {
			t.Errorf("%s: want descriptor and socket, have %+v", test.name, failure)
		}
		var errno syscall.Errno
		if want, have := errors.As(test.cause, &errno), errors.As(err, &errno); want != have {
			t.Errorf("%s: errno: want %v, have %v", test.name, want, have)
		}
	}
	if err := sendFailure("/path", 7, 5, nil); !errors.Is(err, io.ErrShortWrite) || !strings.Contains(err.Error(), "5 of 16 bytes") {
		t.Errorf("short send: have %v", err)
	}
}

func TestFailureText(t *testing.T) {
	for _, test := range []struct {
		failure *Failure
		want    string
	}{
		{&Failure{Sentinel: ErrUnsupported, Descriptor: -1, Socket: "/s"}, `hand over to "/s": unsupported operation`},
		{
			&Failure{Sentinel: ErrWouldBlock, Descriptor: 7, Socket: "/s", Cause: os.NewSyscallError("sendmsg", errors.New("cause"))},
			`hand over descriptor 7 to "/s": would block: sendmsg: cause`,
		},
		{
			&Failure{Sentinel: ErrAckTimeout, Descriptor: 7, Socket: "/s", Reached: true},
			`hand over descriptor 7 to "/s": not acknowledged in time, but the descriptor reached the peer`,
		},
	} {
		if have := test.failure.Error(); have != test.want {
			t.Errorf("want %s, have %s", test.want, have)
		}
	}
	if Reached(nil) || Reached(ErrAckTimeout) || !Reached(fmt.Errorf("x: %w", &Failure{Sentinel: ErrAckTimeout, Reached: true})) {
		t.Error("Reached does not find the failure")
	}
}

func TestClassify(t *testing.T) {
	refused := func(reason Reason) error { return &RefusedError{Sentinel: ErrRefused, Reason: reason} }
	for _, test := range []struct {
		failure  error
		class    Class
		fallback Fallback
	}{
		{nil, "", ""},
		{ErrUnsupported, "", FallbackPolicyDisabled},
		{ErrPolicy, "", FallbackPolicyDisabled},
		{context.Canceled, "", FallbackPolicyDisabled},
		{ErrPermission, ClassPermissionDenied, FallbackPermissionDenied},
		{syscall.EACCES, ClassPermissionDenied, FallbackPermissionDenied},
		{ErrUnavailable, ClassAckTimeout, FallbackAckTimeout},
		{ErrWouldBlock, ClassAckTimeout, FallbackAckTimeout},
		{ErrSendFailed, ClassAckTimeout, FallbackAckTimeout},
		{ErrAckTimeout, ClassAckTimeout, FallbackAckTimeout},
		{ErrFrameTimeout, ClassAckTimeout, FallbackAckTimeout},
		{context.DeadlineExceeded, ClassAckTimeout, FallbackAckTimeout},
		{io.EOF, ClassAckTimeout, FallbackAckTimeout},
		{errors.New("anything else"), ClassAckTimeout, FallbackAckTimeout},
		{ErrTokenMismatch, ClassIntegrityMismatch, FallbackIntegrityMismatch},
		{ErrTokenMissing, ClassIntegrityMismatch, FallbackIntegrityMismatch},
		{ErrTokenLength, ClassIntegrityMismatch, FallbackIntegrityMismatch},
		{ErrTokenNotPending, ClassIntegrityMismatch, FallbackIntegrityMismatch},
		{ErrTokenExpired, ClassIntegrityMismatch, FallbackIntegrityMismatch},
		{ErrAck, ClassIntegrityMismatch, FallbackIntegrityMismatch},
		{ErrMalformed, ClassIntegrityMismatch, FallbackIntegrityMismatch},
		{ErrDescriptorPressure, "", FallbackDescriptorPressure},
		{ErrTokenStoreFull, "", FallbackDescriptorPressure},
		{system("socket", syscall.EMFILE), "", FallbackDescriptorPressure},
		{ErrRefused, ClassIntegrityMismatch, FallbackIntegrityMismatch},
		{refused(ReasonToken), ClassIntegrityMismatch, FallbackIntegrityMismatch},
		{refused(ReasonIdentity), ClassIntegrityMismatch, FallbackIntegrityMismatch},
		{refused("a newer word"), ClassIntegrityMismatch, FallbackIntegrityMismatch},
		{refused(ReasonPermission), ClassPermissionDenied, FallbackPermissionDenied},
		{refused(ReasonTimeout), ClassAckTimeout, FallbackAckTimeout},
		{refused(ReasonDescriptors), "", FallbackDescriptorPressure},
		{refused(ReasonKind), "", FallbackPolicyDisabled},
		{(Decision{Fallback: FallbackDescriptorPressure}).Err(), "", FallbackDescriptorPressure},
		{(Decision{Fallback: FallbackRateLimited}).Err(), "", FallbackRateLimited},
	} {
		for _, err := range []error{test.failure, fmt.Errorf("wrapped: %w", test.failure), &Failure{Sentinel: test.failure, Reached: true}} {
			if test.failure == nil {
				err = nil
			}
			if have := Classify(err); have != test.class {
				t.Errorf("%v: want class %q, have %q", err, test.class, have)
			}
			if have := FallbackFor(err); have != test.fallback {
				t.Errorf("%v: want fallback %q, have %q", err, test.fallback, have)
			}
			if have := FallbackFor(err).SafeToHide(); have != (err != nil) {
				t.Errorf("%v: safe to hide: have %v", err, have)
			}
		}
	}
}

func TestEveryFallbackIsSafeToHide(t *testing.T) {
	for _, fallback := range fallbacks {
		if !fallback.SafeToHide() || !(Decision{Fallback: fallback}).Reconnect() {
			t.Errorf("%s: want a reconnect that is safe to hide", fallback)
		}
	}
	for _, fallback := range []Fallback{"", "a newer one"} {
		if fallback.SafeToHide() {
			t.Errorf("%q: want no promise", fallback)
		}
	}
}
