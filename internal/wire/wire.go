// Package wire frames messages on a stream: a big-endian u32 that counts the bytes of the body, a u8 type, a CBOR body.
//
// Bodies are CBOR maps with integer keys (RFC 8949), because a CBOR map lets a newer peer add a field that an older one
// skips. Whatever comes in is hostile until decoded: its size, its nesting and the length of its arrays are bounded
// before memory is spent on them.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

const (
	// HeaderSize is the number of bytes before a body.
	HeaderSize = 5
	// MaxBody is the largest body in bytes that either side may send.
	MaxBody = 1 << 20
)

var (
	// ErrTooLarge says that a frame announced, or would need, more bytes than allowed.
	ErrTooLarge = errors.New("frame too large")
	// ErrMalformed says that a body is not the CBOR that its type asks for.
	ErrMalformed = errors.New("malformed frame")
)

var (
	encoding = must(cbor.EncOptions{
		Sort:          cbor.SortCoreDeterministic,
		ShortestFloat: cbor.ShortestFloat16,
		IndefLength:   cbor.IndefLengthForbidden,
		TagsMd:        cbor.TagsForbidden,
	}.EncMode())
	decoding = must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  8,
		MaxArrayElements: 4096,
		MaxMapPairs:      256,
	}.DecMode())
)

// must is for options that are constants of this file.
func must[T any](mode T, err error) T {
	if err != nil {
		panic(err)
	}
	return mode
}

// AppendFrame appends header and body of one frame to dst. It fails with ErrTooLarge above MaxBody.
func AppendFrame(dst []byte, kind uint8, body any) ([]byte, error) {
	encoded, err := encoding.Marshal(body)
	if err != nil {
		return dst, fmt.Errorf("encode frame of type %d: %w", kind, err)
	}
	if len(encoded) > MaxBody {
		return dst, fmt.Errorf("encode frame of type %d: %w: %d bytes, at most %d", kind, ErrTooLarge, len(encoded), MaxBody)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(encoded)))
	dst = append(dst, kind)
	return append(dst, encoded...), nil
}

// ParseHeader returns the type and the length of the body of a frame, and ErrTooLarge when the length exceeds limit.
func ParseHeader(header [HeaderSize]byte, limit int) (kind uint8, length int, err error) {
	kind = header[4]
	announced := binary.BigEndian.Uint32(header[:4])
	if int64(announced) > int64(limit) {
		return kind, 0, fmt.Errorf("frame of type %d: %w: %d bytes announced, at most %d", kind, ErrTooLarge, announced, limit)
	}
	return kind, int(announced), nil
}

// Marshal encodes what travels inside a body.
func Marshal(value any) ([]byte, error) { return encoding.Marshal(value) }

// Unmarshal decodes what travels inside a body, within the same bounds as Decode.
func Unmarshal(data []byte, into any) error {
	if err := decoding.Unmarshal(data, into); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: %v", ErrMalformed, err) // it is the body that ends, and not the stream
		}
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// Decode decodes a body into a struct. Unknown keys are skipped; anything else that is not what the struct asks for is
// ErrMalformed.
func Decode(kind uint8, body []byte, into any) error {
	if err := Unmarshal(body, into); err != nil {
		return fmt.Errorf("frame of type %d: %w", kind, err)
	}
	return nil
}
