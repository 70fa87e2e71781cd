package restart

import (
	"errors"
	"strings"
	"testing"

	"github.com/segue-go/segue/handoff"
)

func TestStates(t *testing.T) {
	encode := func(value string, err error) Codec {
		return Codec{Encode: func() ([]byte, error) { return []byte(value), err }}
	}
	var old states
	for _, name := range []string{"b", "a"} {
		if err := old.add(name, encode("value of "+name, nil)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := old.entries()
	if err != nil || len(entries) != 2 || entries[0].Name != "a" || string(entries[1].Data) != "value of b" {
		t.Fatalf("want a and b in order, have %+v, %v", entries, err)
	}

	var next states
	for _, entry := range entries {
		next.inherit(entry)
	}
	var have string
	decode := Codec{Decode: func(value []byte) error { have = string(value); return nil }}
	if err := next.add("a", decode); err != nil || have != "value of a" {
		t.Errorf("want the predecessor's value, have %q, %v", have, err)
	}
	have = ""
	if err := next.add("new", decode); err != nil || have != "" {
		t.Errorf("a state without predecessor: want no value, have %q, %v", have, err)
	}
	broken := errors.New("broken")
	if err := next.add("b", Codec{Decode: func([]byte) error { return broken }}); !errors.Is(err, broken) {
		t.Errorf("want the error of Decode, have %v", err)
	}
}

func TestStateErrors(t *testing.T) {
	codec := Codec{Encode: func() ([]byte, error) { return nil, nil }}
	var s states
	if err := s.add("taken", codec); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "taken", strings.Repeat("x", handoff.MaxName+1)} {
		if err := s.add(name, codec); !errors.Is(err, ErrStateName) {
			t.Errorf("%.20q: want ErrStateName, have %v", name, err)
		}
	}
	large := states{codecs: map[string]Codec{"large": {Encode: func() ([]byte, error) { return make([]byte, handoff.MaxData+1), nil }}}}
	if _, err := large.entries(); !errors.Is(err, ErrStateTooLarge) {
		t.Errorf("want ErrStateTooLarge, have %v", err)
	}
	broken := errors.New("broken")
	failing := states{codecs: map[string]Codec{"failing": {Encode: func() ([]byte, error) { return nil, broken }}}}
	if _, err := failing.entries(); !errors.Is(err, broken) {
		t.Errorf("want the error of Encode, have %v", err)
	}
}
