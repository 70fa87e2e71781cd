package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// failure is what became of a request that was not answered well.
type failure struct {
	cause cause
	err   error
}

func (f failure) Error() string { return f.cause.String() + ": " + f.err.Error() }
func (f failure) Unwrap() error { return f.err }

// cause is the sort of failure. Report says what each means.
type cause int

const (
	refused cause = iota
	closed
	aborted
	timedOut
	wrong
	causes
)

func (c cause) String() string {
	return [...]string{"refused", "closed", "aborted", "timed out", "wrong"}[c]
}

// dialFailure is that of a dial.
func dialFailure(err error) error {
	return cutFailure(refused, err)
}

// cutFailure is that of a connection that failed at a point where its end would have the given cause.
func cutFailure(at cause, err error) error {
	var timeout net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		at = timedOut
	}
	return failure{at, err}
}

// readFailure is that of an answer of which something has come: it was cut, or it is not HTTP.
func readFailure(part string, err error) error {
	err = fmt.Errorf("%s of the answer: %w", part, err)
	var op *net.OpError
	if errors.As(err, &op) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return cutFailure(aborted, err)
	}
	return failure{wrong, err}
}
