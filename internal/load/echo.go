package load

import (
	"bytes"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// echo is the body of a POST, different each time. It is made twice from one seed, by the sender and by the one who
// compares, so that it is never held as a whole.
type echo struct {
	size       int64
	seed       [32]byte
	round      uint64
	out, back  *rand.ChaCha8
	outBuf     []byte
	got, wants []byte
}

const echoChunk = 32 << 10

func newEcho(size int64) *echo {
	n := min(size, echoChunk) + 1
	e := &echo{size: size, outBuf: make([]byte, n), got: make([]byte, n), wants: make([]byte, n)}
	crand.Read(e.seed[:])
	return e
}

// begin makes the next body the current one.
func (e *echo) begin() {
	e.round++
	binary.LittleEndian.PutUint64(e.seed[:], e.round)
	e.out, e.back = rand.NewChaCha8(e.seed), rand.NewChaCha8(e.seed)
}

// send writes the body. It may run beside compare.
func (e *echo) send(w io.Writer) error {
	for left := e.size; left > 0; {
		chunk := e.outBuf[:min(left, int64(len(e.outBuf)))]
		e.out.Read(chunk)
		if _, err := w.Write(chunk); err != nil {
			return err
		}
		left -= int64(len(chunk))
	}
	return nil
}

// compare reads an answer to its end: the body, no more and no less.
func (e *echo) compare(r io.Reader) error {
	for at := int64(0); ; {
		n, err := r.Read(e.got)
		want := e.wants[:n]
		e.back.Read(want)
		if at+int64(n) > e.size {
			return failure{wrong, fmt.Errorf("echo longer than the %d bytes sent", e.size)}
		}
		if !bytes.Equal(e.got[:n], want) {
			return failure{wrong, fmt.Errorf("echo differs in bytes %d to %d of %d", at, at+int64(n), e.size)}
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF) && at < e.size:
			return failure{wrong, fmt.Errorf("echo of %d bytes, sent %d", at, e.size)}
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return readFailure("body", err)
		}
	}
}
