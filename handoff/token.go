package handoff

import (
	"crypto/subtle"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/fxamacker/cbor/v2"
)

// TokenSize is the number of bytes of a token on the wire: 128 bits.
const TokenSize = 16

var (
	// ErrTokenMissing says that a peer presented no token at all.
	ErrTokenMissing = errors.New("token missing")
	// ErrTokenLength says that what a peer presented is not TokenSize bytes long.
	ErrTokenLength = errors.New("token of wrong length")
	// ErrTokenMismatch says that a peer presented another token than the one expected of it.
	ErrTokenMismatch = errors.New("token mismatch")
	// ErrTokenDigits says that a text is not made of pairs of hexadecimal digits.
	ErrTokenDigits = errors.New("token not made of hex digits")
)

// Token is a 128-bit secret that is used once. Whoever holds it may hand over or take over descriptors.
//
// A Token prints as "redacted" in every way that Go has to print a value. The zero Token is no token. Tokens are
// compared with Equal, in constant time; == compares identity. Safe for concurrent use.
type Token struct {
	// fmt prints an unexported field of somebody's struct without asking Format, and follows a pointer to an array, slice,
	// struct or map when the verb does not fit. Of a pointer to a string it prints the address, always (fmt/print.go,
	// printValue).
	secret *string
}

var (
	_ fmt.Formatter          = Token{}
	_ fmt.Stringer           = Token{}
	_ fmt.GoStringer         = Token{}
	_ slog.LogValuer         = Token{}
	_ json.Marshaler         = Token{}
	_ encoding.TextMarshaler = Token{}
	_ cbor.Marshaler         = Token{}
	_ cbor.Unmarshaler       = (*Token)(nil)
)

// ParseToken makes a Token of its wire bytes, which it copies: ErrTokenMissing for none, ErrTokenLength for too few or
// too many.
func ParseToken(wire []byte) (Token, error) {
	switch len(wire) {
	case 0:
		return Token{}, ErrTokenMissing
	case TokenSize:
		secret := string(wire)
		return Token{secret: &secret}, nil
	default:
		return Token{}, fmt.Errorf("%w: %d bytes, want %d", ErrTokenLength, len(wire), TokenSize)
	}
}

// ParseTokenText makes a Token of its wire bytes in hexadecimal digits, as in a flag: ErrTokenDigits, or the errors of ParseToken. None shows the
// text.
func ParseTokenText(text string) (Token, error) {
	wire, err := hex.DecodeString(text)
	if err != nil {
		return Token{}, ErrTokenDigits
	}
	return ParseToken(wire)
}

func randomToken(random io.Reader) (Token, error) {
	var secret [TokenSize]byte
	if _, err := io.ReadFull(random, secret[:]); err != nil {
		return Token{}, fmt.Errorf("draw token: %w", err)
	}
	return ParseToken(secret[:])
}

// IsZero reports whether t is no token.
func (t Token) IsZero() bool { return t.secret == nil }

// Equal compares in constant time. The zero Token equals nothing, not even itself.
func (t Token) Equal(other Token) bool {
	return t.secret != nil && other.secret != nil && subtle.ConstantTimeCompare([]byte(*t.secret), []byte(*other.secret)) == 1
}

// Verify compares with the wire form that a peer presented, in constant time. It tells apart ErrTokenMissing,
// ErrTokenLength and ErrTokenMismatch, and consumes nothing: see TokenStore.Redeem.
func (t Token) Verify(presented []byte) error {
	token, err := ParseToken(presented)
	if err != nil {
		return err
	}
	if !token.Equal(t) {
		return ErrTokenMismatch
	}
	return nil
}

// Expose returns a copy of the wire bytes, nil for the zero Token. It is the one way to see them: to send them.
func (t Token) Expose() []byte {
	if t.secret == nil {
		return nil
	}
	return []byte(*t.secret)
}

const redacted = "redacted"

// Format implements fmt.Formatter for every verb.
func (t Token) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, redacted) }

// String implements fmt.Stringer.
func (t Token) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (t Token) GoString() string { return redacted }

// LogValue implements slog.LogValuer.
func (t Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON implements json.Marshaler.
func (t Token) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (t Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalCBOR implements cbor.Marshaler for the frames of this package: a byte string with the secret in it.
func (t Token) MarshalCBOR() ([]byte, error) { return cbor.Marshal(t.Expose()) }

// UnmarshalCBOR implements cbor.Unmarshaler.
func (t *Token) UnmarshalCBOR(data []byte) error {
	var bytes []byte
	if err := cbor.Unmarshal(data, &bytes); err != nil {
		return err
	}
	parsed, err := ParseToken(bytes)
	if errors.Is(err, ErrTokenMissing) {
		*t = Token{}
		return nil
	}
	*t = parsed
	return err
}
