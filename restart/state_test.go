package restart

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/segue-go/segue/handoff"
)

func fixed(value []byte, err error) Codec {
	return Codec{Encode: func() ([]byte, error) { return value, err }}
}

func into(have *[]byte) Codec {
	return Codec{Decode: func(value []byte) error { *have = append([]byte{}, value...); return nil }}
}

func TestStates(t *testing.T) {
	var old states
	for _, name := range []string{"b", "a"} {
		if err := old.add(name, fixed([]byte("value of "+name), nil)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := old.entries(true)
	if err != nil || len(entries) != 2 || entries[0].Name != "a" || string(entries[1].Data) != "value of b" {
		t.Fatalf("want a and b in order, have %+v, %v", entries, err)
	}

	var next states
	for i := range entries {
		if err := next.inherit(&entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	var have []byte
	if err := next.add("a", into(&have)); err != nil || string(have) != "value of a" {
		t.Errorf("want the predecessor's value, have %q, %v", have, err)
	}
	have = nil
	if err := next.add("new", into(&have)); err != nil || have != nil {
		t.Errorf("a state without predecessor: want no value, have %q, %v", have, err)
	}
	broken := errors.New("broken")
	if err := next.add("b", Codec{Decode: func([]byte) error { return broken }}); !errors.Is(err, broken) {
		t.Errorf("want the error of Decode, have %v", err)
	}
}

func TestStateErrors(t *testing.T) {
	var s states
	if err := s.add("taken", fixed(nil, nil)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "taken", strings.Repeat("x", handoff.MaxName+1)} {
		if err := s.add(name, fixed(nil, nil)); !errors.Is(err, ErrStateName) {
			t.Errorf("%.20q: want ErrStateName, have %v", name, err)
		}
	}
	broken := errors.New("broken")
	large := make([]byte, MaxState+1)
	for _, test := range []struct {
		name   string
		codecs map[string]Codec
		parts  bool
		want   error
		has    string
	}{
		{"largest", map[string]Codec{"largest": fixed(large[:MaxState], nil)}, true, nil, ""},
		{"too large", map[string]Codec{"sessions": fixed(large, nil)}, true, ErrStateTooLarge, `"sessions": state too large: 67108865 bytes, at most 67108864`},
		{"largest for an older peer", map[string]Codec{"largest": fixed(large[:handoff.MaxData], nil)}, false, nil, ""},
		{"too large for an older peer", map[string]Codec{"sessions": fixed(large[:handoff.MaxData+1], nil)}, false, ErrStateTooLarge, "at most 524288"},
		{"as large as may be together", several(MaxStates/MaxState, fixed(large[:MaxState], nil)), true, nil, ""},
		{"too large together", several(MaxStates/MaxState+1, fixed(large[:MaxState], nil)), true, ErrStateTooLarge, "at most 268435456"},
		{"cannot be encoded", map[string]Codec{"failing": fixed(nil, broken)}, true, broken, `"failing"`},
	} {
		s := states{codecs: test.codecs}
		_, err := s.entries(test.parts)
		if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.has) {
			t.Errorf("%s: want %v with %s, have %v", test.name, test.want, test.has, err)
		}
	}
	many := states{codecs: several(maxStateNames, fixed(nil, nil))}
	if err := many.add("one more", fixed(nil, nil)); !errors.Is(err, ErrStateName) {
		t.Errorf("one more than the most: want ErrStateName, have %v", err)
	}
}

func several(n int, codec Codec) map[string]Codec {
	codecs := make(map[string]Codec)
	for i := range n {
		codecs[fmt.Sprint(i)] = codec
	}
	return codecs
}

// What is divided is put together again, in as many offers as it takes, and the same offers come out of it.
func TestStatesInParts(t *testing.T) {
	const m = handoff.MaxData
	random := rand.New(rand.NewPCG(1, 2))
	for _, test := range []struct {
		sizes []int // of states 0, 1, …
		parts int   // of all
	}{
		{[]int{0}, 1},
		{[]int{m}, 1},
		{[]int{m + 1}, 2},
		{[]int{2 * m}, 2},
		{[]int{2*m - 1, 0, m, 3*m + 1, 5}, 9},
	} {
		var old, next states
		want := make(map[string][]byte)
		for i, size := range test.sizes {
			value := make([]byte, size)
			for j := range value {
				value[j] = byte(random.Uint32())
			}
			want[fmt.Sprint(i)] = value
			if err := old.add(fmt.Sprint(i), fixed(value, nil)); err != nil {
				t.Fatal(err)
			}
		}
		entries, err := old.entries(true)
		if err != nil || len(entries) != test.parts {
			t.Errorf("%v: want %d parts, have %d, %v", test.sizes, test.parts, len(entries), err)
		}
		for _, offer := range handoff.Offers(entries) {
			for i := range offer.Entries {
				if err := next.inherit(&offer.Entries[i]); err != nil {
					t.Fatalf("%v: %v", test.sizes, err)
				}
			}
		}
		if err := next.complete(); err != nil {
			t.Errorf("%v: %v", test.sizes, err)
		}
		for name := range want {
			if !bytes.Equal(want[name], next.inherited[name]) {
				t.Errorf("%v: state %s has other bytes", test.sizes, name)
			}
		}
	}
}

func part(name string, size, offset uint64, data string) handoff.Entry {
	return handoff.Entry{Kind: kindState, Name: name, Size: size, Offset: offset, Data: []byte(data)}
}

// hostileStates do not fit together.
var hostileStates = []struct {
	name    string
	entries []handoff.Entry
	want    error
	has     string
}{
	{"begins in the middle", []handoff.Entry{part("a", 4, 2, "cd")}, ErrStateParts, `"a": state does not fit together: part at byte 2, want the first`},
	{"gap", []handoff.Entry{part("a", 4, 0, "a"), part("a", 4, 2, "cd")}, ErrStateParts, `want the part of "a" at 1 of 4`},
	{"part again", []handoff.Entry{part("a", 4, 0, "a"), part("a", 4, 0, "a")}, ErrStateParts, `want the part of "a" at 1 of 4`},
	{"overlap", []handoff.Entry{part("a", 4, 0, "abc"), part("a", 4, 2, "cd")}, ErrStateParts, `want the part of "a" at 3 of 4`},
	{"too much", []handoff.Entry{part("a", 4, 0, "abc"), part("a", 4, 3, "de")}, ErrStateParts, `2 bytes at 3 of 4, want the part of "a" at 3 of 4`},
	{"too much at once", []handoff.Entry{part("a", 2, 0, "abc")}, ErrStateParts, `3 bytes at 0 of 2`},
	{"nothing", []handoff.Entry{part("a", 4, 0, "a"), part("a", 4, 1, "")}, ErrStateParts, `0 bytes at 1 of 4`},
	{"size changes", []handoff.Entry{part("a", 4, 0, "a"), part("a", 5, 1, "b")}, ErrStateParts, `1 bytes at 1 of 5, want the part of "a" at 1 of 4`},
	{"another between", []handoff.Entry{part("a", 4, 0, "a"), part("b", 4, 1, "b")}, ErrStateParts, `"b": state does not fit together: 1 bytes at 1 of 4, want the part of "a"`},
	{"another begins", []handoff.Entry{part("a", 4, 0, "a"), part("b", 4, 0, "b")}, ErrStateParts, `want the part of "a" at 1 of 4`},
	{"a whole one between", []handoff.Entry{part("a", 4, 0, "a"), part("b", 0, 0, "b")}, ErrStateParts, `want the part of "a" at 1 of 4`},
	{"twice", []handoff.Entry{part("a", 0, 0, "a"), part("a", 0, 0, "b")}, ErrStateParts, `"a": state does not fit together: it came already`},
	{"twice, in parts", []handoff.Entry{part("a", 0, 0, "a"), part("a", 2, 0, "b")}, ErrStateParts, `it came already`},
	{"incomplete", []handoff.Entry{part("a", 4, 0, "abc")}, ErrStateParts, `"a": state does not fit together: it ends after 3 bytes, want 4`},
	{"no name", []handoff.Entry{part("", 0, 0, "a")}, ErrStateName, ""},
	{"too large", []handoff.Entry{part("a", MaxState+1, 0, "a")}, ErrStateTooLarge, `"a": state too large: 67108865 bytes, at most 67108864`},
	{"as large as numbers go", []handoff.Entry{part("a", 1<<64-1, 0, "a")}, ErrStateTooLarge, "at most 67108864"},
}

func TestInvariant7StatesThatDoNotFitTogetherAreRefused(t *testing.T) {
	for _, test := range hostileStates {
		var s states
		var err error
		for i := range test.entries {
			if err == nil {
				err = s.inherit(&test.entries[i])
			}
		}
		if err == nil {
			err = s.complete()
		}
		if !errors.Is(err, test.want) || !errors.Is(err, handoff.ErrOffer) || !strings.Contains(err.Error(), test.has) {
			t.Errorf("%s: want %v with %s, have %v", test.name, test.want, test.has, err)
		}
		if s.partial != nil {
			t.Errorf("%s: %d bytes are kept", test.name, cap(s.partial.value))
		}
	}
}

func TestInvariant7StatesAreBoundedTogether(t *testing.T) {
	var s states
	for i := range MaxStates/MaxState - 1 { // as if: memory is only taken for what comes
		if err := s.announce(fmt.Sprint(i), MaxState); err != nil {
			t.Fatal(err)
		}
	}
	entry := part("last", MaxState, 0, "a")
	if err := s.inherit(&entry); err != nil {
		t.Fatal(err)
	}
	if want, have := MaxState, cap(s.partial.value); want != have {
		t.Errorf("want room for %d bytes, have %d", want, have)
	}
	s.partial = nil
	entry = part("one more", 0, 0, "a")
	if err := s.inherit(&entry); !errors.Is(err, ErrStateTooLarge) || !strings.Contains(err.Error(), "268435456") {
		t.Errorf("one byte more than all may have: want ErrStateTooLarge, have %v", err)
	}
	s.disinherit()
	for i := range maxStateNames {
		entry := part(fmt.Sprint(i), 0, 0, "")
		if err := s.inherit(&entry); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.inherit(&entry); !errors.Is(err, ErrStateName) {
		t.Errorf("one more than the most: want ErrStateName, have %v", err)
	}
	s.forgetUnclaimed(slog.New(slog.DiscardHandler))
	if !reflect.DeepEqual(s, states{}) {
		t.Errorf("want all forgotten, have %+v", s)
	}
}

// Whatever parts come in whatever order: a value that is kept is what its parts were, and never more is held than was
// announced and allowed.
func FuzzStatesInherit(f *testing.F) {
	f.Add([]byte{1, 4, 0, 2, 1, 4, 2, 2, 2, 0, 0, 7})
	f.Add([]byte{1, 4, 0, 2, 2, 0, 0, 7})
	f.Add([]byte{1, 255, 0, 255, 1, 255, 0, 255, 2, 255, 0, 255})
	f.Fuzz(func(t *testing.T, script []byte) {
		const room = 600
		s := states{size: MaxStates - room}
		var model []byte // what came of the value under way
		held, fill := 0, byte(0)
		for ; len(script) >= 4; script = script[4:] {
			fill++
			data := bytes.Repeat([]byte{fill}, int(script[3]))
			entry := handoff.Entry{Name: strings.Repeat("n", int(script[0]%4)), Size: uint64(script[1]), Offset: uint64(script[2]), Data: data}
			err := s.inherit(&entry)
			if err != nil {
				if !errors.Is(err, handoff.ErrOffer) || s.partial != nil {
					t.Fatalf("want ErrOffer and nothing kept, have %v, %+v", err, s.partial)
				}
				return
			}
			if entry.Offset != uint64(len(model)) && entry.Size != 0 {
				t.Fatalf("part at %d was taken after %d bytes", entry.Offset, len(model))
			}
			model = append(model, data...)
			if s.partial != nil {
				if !bytes.Equal(model, s.partial.value) || cap(s.partial.value) > 255 {
					t.Fatalf("want %d bytes, have %d of %d", len(model), len(s.partial.value), cap(s.partial.value))
				}
				continue
			}
			if !bytes.Equal(model, s.inherited[entry.Name]) {
				t.Fatalf("%q: want %x, have %x", entry.Name, model, s.inherited[entry.Name])
			}
			held += len(model)
			model = nil
			if held > room {
				t.Fatalf("%d bytes are held, want at most %d", held, room)
			}
		}
		if err := s.complete(); (err != nil) != (len(model) > 0) {
			t.Fatalf("%d bytes of a value: %v", len(model), err)
		}
	})
}
