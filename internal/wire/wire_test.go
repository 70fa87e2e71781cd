package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

type body struct {
	Number uint64   `cbor:"1,keyasint"`
	Text   string   `cbor:"2,keyasint,omitempty"`
	List   []uint64 `cbor:"3,keyasint,omitempty"`
}

func TestFrameBytesAreTheDocumentedOnes(t *testing.T) {
	have, err := AppendFrame(nil, 7, body{Number: 1, Text: "a"})
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{0, 0, 0, 6, 7, 0xa2, 0x01, 0x01, 0x02, 0x61, 'a'}
	if !bytes.Equal(want, have) {
		t.Errorf("frame: want %x, have %x", want, have)
	}
	kind, length, err := ParseHeader([HeaderSize]byte(have), MaxBody)
	if err != nil || kind != 7 || length != 6 {
		t.Errorf("header: want type 7 length 6, have type %d length %d, error %v", kind, length, err)
	}
	var decoded body
	if err := Decode(7, have[HeaderSize:], &decoded); err != nil || decoded.Number != 1 || decoded.Text != "a" {
		t.Errorf("decode: want the same body, have %+v, error %v", decoded, err)
	}
}

func TestDecodeSkipsUnknownKeys(t *testing.T) {
	encoded, err := cbor.Marshal(map[int]any{1: 5, 99: map[int]any{1: "from a newer version"}})
	if err != nil {
		t.Fatal(err)
	}
	var decoded body
	if err := Decode(1, encoded, &decoded); err != nil || decoded.Number != 5 {
		t.Errorf("want number 5 and no error, have %d, %v", decoded.Number, err)
	}
}

func TestDecodeRefusesWhatIsHostile(t *testing.T) {
	for name, input := range map[string][]byte{
		"empty":               {},
		"text for a number":   {0xa1, 0x01, 0x61, 'a'},
		"trailing byte":       {0xa1, 0x01, 0x01, 0x00},
		"duplicate key":       {0xa2, 0x01, 0x01, 0x01, 0x02},
		"indefinite map":      {0xbf, 0x01, 0x01, 0xff},
		"tag":                 {0xa1, 0x01, 0xc1, 0x01},
		"array of 2^32":       {0xa1, 0x03, 0x9a, 0xff, 0xff, 0xff, 0xff},
		"map of 2^64":         {0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"string of 2^63":      {0xa1, 0x02, 0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"nested beyond bound": append([]byte{0xa1, 0x18, 0x63}, bytes.Repeat([]byte{0x81}, 64)...),
	} {
		var decoded body
		if err := Decode(1, input, &decoded); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: want ErrMalformed, have %v", name, err)
		}
	}
}

func TestSizeIsBoundedBothWays(t *testing.T) {
	if _, err := AppendFrame(nil, 1, body{Text: string(make([]byte, MaxBody))}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("append: want ErrTooLarge, have %v", err)
	}
	if _, _, err := ParseHeader([HeaderSize]byte{0xff, 0xff, 0xff, 0xff, 1}, MaxBody); !errors.Is(err, ErrTooLarge) {
		t.Errorf("parse: want ErrTooLarge, have %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	valid, err := AppendFrame(nil, 1, body{Number: 1, Text: "a", List: []uint64{1, 2}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(valid)
	f.Add([]byte{0, 0, 0, 1, 9, 0xa0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) < HeaderSize {
			return
		}
		kind, length, err := ParseHeader([HeaderSize]byte(input), MaxBody)
		if err != nil || length > len(input)-HeaderSize {
			return
		}
		var first body
		if Decode(kind, input[HeaderSize:HeaderSize+length], &first) != nil {
			return
		}
		// What was accepted survives a round trip: nothing was half understood.
		again, err := AppendFrame(nil, kind, first)
		if err != nil {
			t.Fatalf("accepted body cannot be encoded: %v", err)
		}
		var second body
		if err := Decode(kind, again[HeaderSize:], &second); err != nil {
			t.Fatalf("own encoding is refused: %v", err)
		}
	})
}

// A body that ends too soon is no end of the stream, which would mean that the peer is gone.
func TestBodyThatEndsTooSoonIsNoEOF(t *testing.T) {
	var into struct {
		Data []byte `cbor:"1,keyasint"`
	}
	for _, body := range [][]byte{{}, {0xa1}, {0xa1, 0x01, 0x42, 0x00}} {
		err := Decode(1, body, &into)
		if !errors.Is(err, ErrMalformed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%x: want ErrMalformed and no EOF, have %v", body, err)
		}
	}
}
