package handoff

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/segue-go/segue/internal/scm"
	"github.com/segue-go/segue/internal/wire"
)

var update = flag.Bool("update", false, "write testdata/v1.golden anew; its bytes may never change once released")

// transcript is an upgrade in version 1, with each kind of message in it.
func transcript(t *testing.T) []Message {
	token := parse(t, secret)
	first := []string{CapabilityListeners, CapabilityPackets, CapabilityFiles, CapabilityState, CapabilityConnections}
	return []Message{
		&Hello{Version: 1, Capabilities: first, Token: token, PID: 4711},
		&Welcome{Version: 1, Capabilities: first, Generation: 2, Limits: Limits{Body: wire.MaxBody, Descriptors: 253}, PID: 4242},
		&Refuse{Reason: ReasonToken, Detail: "token mismatch"},
		&Offer{ID: 1, Token: token, Count: 2, More: true, Entries: []Entry{
			{ID: 1, Kind: "listener", Name: "web", Network: "tcp", Address: "[::]:8080", Described: true},
			{ID: 2, Kind: "file", Name: "journal", Described: true},
		}},
		&Offer{ID: 2, Entries: []Entry{{ID: 3, Kind: "state", Name: "sessions", Data: []byte{1, 2, 3}}}},
		&Ack{Offer: 1, Results: []Result{{ID: 1, Accepted: true}, {ID: 2, Reason: ReasonKind, Detail: "unknown kind"}}},
		&Ready{Probation: 5000},
		&Ping{Number: 1},
		&Pong{Number: 1},
		&Grant{Offers: []uint64{1, 2}},
		&Commit{},
		&Committed{},
		&Rollback{Reason: ReasonUnhealthy, Detail: "no database"},
		&Bye{Upgrade: true, Stop: true},
		// What came later.
		&Hello{Version: 1, Capabilities: []string{CapabilityState, CapabilityParts, CapabilityCounters}, Token: token},
		&Offer{ID: 3, More: true, Entries: []Entry{
			{ID: 4, Kind: "counter", Name: "requests", Data: []byte{0, 0, 0, 0, 0, 0, 1, 0}},
			{ID: 5, Kind: "state", Name: "rooms", Data: []byte{1, 2, 3}, Size: 5},
		}},
		&Offer{ID: 4, Entries: []Entry{{ID: 6, Kind: "state", Name: "rooms", Data: []byte{4, 5}, Size: 5, Offset: 3}}},
		&Ready{Credit: 18000},
		&Pong{Number: 2, Credit: 17000},
		&Ack{Offer: 5, Results: []Result{{ID: 1, Accepted: true}}, Credit: 16747},
		&Counted{Totals: []Total{{Name: "requests", Value: 4711}, {Name: "errors", Value: 1}}},
		// A broker's.
		&Hello{Version: 1, Capabilities: []string{CapabilityBroker}},
		&Welcome{Version: 1, Capabilities: []string{CapabilityBroker}, Limits: Limits{Body: wire.MaxBody, Descriptors: 253, Credit: 64}},
		&Offer{ID: 1, Token: token, Count: 1, Correlation: 4711, Relay: true, Entries: []Entry{{ID: 1, Kind: "connection", Name: "web", Described: true}}},
		&Ack{Offer: 1, Results: []Result{{ID: 1, Accepted: true}}, Credit: 63, Token: token, Correlation: 4711},
		&Announce{Token: token, Correlation: 4711},
		&Relay{Token: token, Backend: true, Correlation: 4711},
		&Relay{Token: token, Reason: ReasonTimeout},
	}
}

func TestGoldenTranscriptPinsTheBytesOfVersion1(t *testing.T) {
	const golden = "testdata/v1.golden"
	var have strings.Builder
	for _, message := range transcript(t) {
		frame, err := wire.AppendFrame(nil, message.kind(), message)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&have, "%T %s\n", message, hex.EncodeToString(frame))
	}
	if *update {
		if err := os.WriteFile(golden, []byte(have.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != have.String() {
		t.Errorf("want\n%s\nhave\n%s", want, have.String())
	}
}

func TestGoldenTranscriptIsUnderstood(t *testing.T) {
	file, err := os.Open("testdata/v1.golden")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	want := transcript(t)
	lines := bufio.NewScanner(file)
	for i := 0; lines.Scan(); i++ {
		_, digits, _ := strings.Cut(lines.Text(), " ")
		frame, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		have, err := decodeMessage(frame[4], frame[wire.HeaderSize:])
		if err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if !reflect.DeepEqual(want[i], have) {
			t.Errorf("line %d: want %+v, have %+v", i+1, want[i], have)
		}
	}
}

func TestEveryMessageIsInTheTranscript(t *testing.T) {
	seen := make(map[uint8]bool)
	for _, message := range transcript(t) {
		seen[message.kind()] = true
	}
	for kind, empty := range messages {
		if !seen[kind] {
			t.Errorf("%T is not in the transcript", empty())
		}
		if want, have := kind, empty().kind(); want != have {
			t.Errorf("%T: want type %d, have %d", empty(), want, have)
		}
	}
}

func TestUnknownFieldsAreSkippedInEachMessage(t *testing.T) {
	for _, message := range transcript(t) {
		frame, err := wire.AppendFrame(nil, message.kind(), message)
		if err != nil {
			t.Fatal(err)
		}
		fields := make(map[int]cbor.RawMessage)
		if err := cbor.Unmarshal(frame[wire.HeaderSize:], &fields); err != nil {
			t.Fatal(err)
		}
		fields[200], _ = cbor.Marshal(map[string]any{"from": "version 9", "list": []int{1, 2, 3}})
		body, err := cbor.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		have, err := decodeMessage(message.kind(), body)
		if err != nil {
			t.Fatalf("%T: %v", message, err)
		}
		if !reflect.DeepEqual(message, have) {
			t.Errorf("want %+v, have %+v", message, have)
		}
	}
}

func TestInvariant7ImpossibleOffersAreRefused(t *testing.T) {
	token := parse(t, secret)
	long := strings.Repeat("x", MaxName+1)
	many := make([]Entry, MaxDescriptors+1)
	for i := range many {
		many[i] = Entry{ID: uint64(i), Kind: "file", Described: true}
	}
	tooMany := make([]Entry, MaxEntries+1)
	for i := range tooMany {
		tooMany[i] = Entry{ID: uint64(i), Kind: "state"}
	}
	for name, offer := range map[string]*Offer{
		"more announced than listed": {Count: 1, Token: token},
		"fewer announced":            {Count: 0, Token: token, Entries: []Entry{{Kind: "file", Described: true}}},
		"negative":                   {Count: -1, Token: token},
		"254 descriptors":            {Count: 254, Token: token, Entries: many},
		"too many entries":           {Entries: tooMany},
		"no token":                   {Count: 1, Entries: []Entry{{Kind: "file", Described: true}}},
		"one id twice":               {Entries: []Entry{{ID: 7, Kind: "state"}, {ID: 7, Kind: "state"}}},
		"long name":                  {Entries: []Entry{{Kind: "state", Name: long}}},
		"long kind":                  {Entries: []Entry{{Kind: long}}},
		"long address":               {Entries: []Entry{{Kind: "state", Address: long}}},
		"much data":                  {Entries: []Entry{{Kind: "state", Data: make([]byte, MaxData+1)}}},
		"part of nothing":            {Entries: []Entry{{Kind: "state", Data: []byte{1}, Offset: 1}}},
		"part beyond the end":        {Entries: []Entry{{Kind: "state", Data: []byte{1, 2}, Size: 2, Offset: 1}}},
		"part behind the end":        {Entries: []Entry{{Kind: "state", Data: []byte{1}, Size: 2, Offset: 2}}},
		"part at the end of numbers": {Entries: []Entry{{Kind: "state", Data: []byte{1, 2}, Size: 1<<64 - 1, Offset: 1<<64 - 2}}},
		"empty part":                 {Entries: []Entry{{Kind: "state", Size: 2, Offset: 1}}},
		"part with a descriptor":     {Count: 1, Token: token, Entries: []Entry{{Kind: "state", Data: []byte{1}, Size: 2, Described: true}}},
	} {
		frame, err := wire.AppendFrame(nil, kindOffer, offer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeMessage(kindOffer, frame[wire.HeaderSize:]); !errors.Is(err, ErrOffer) {
			t.Errorf("%s: want ErrOffer, have %v", name, err)
		}
	}
}

func TestInvariant7ImpossibleTotalsAreRefused(t *testing.T) {
	for name, counted := range map[string]*Counted{
		"too many":  {Totals: make([]Total, MaxTotals+1)},
		"no name":   {Totals: []Total{{Value: 1}}},
		"long name": {Totals: []Total{{Name: strings.Repeat("x", MaxName+1)}}},
	} {
		frame, err := wire.AppendFrame(nil, kindCounted, counted)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeMessage(kindCounted, frame[wire.HeaderSize:]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: want ErrMalformed, have %v", name, err)
		}
	}
	for name, body := range map[string][]byte{
		"negative":       {0xa1, 1, 0x81, 0xa2, 1, 0x61, 'a', 2, 0x20},
		"fraction":       {0xa1, 1, 0x81, 0xa2, 1, 0x61, 'a', 2, 0xf9, 0x38, 0},
		"beyond 64 bits": {0xa1, 1, 0x81, 0xa2, 1, 0x61, 'a', 2, 0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		if message, err := decodeMessage(kindCounted, body); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: want ErrMalformed, have %+v, %v", name, message, err)
		}
	}
}

func TestOffersPackEntriesWithinBounds(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := scm.Duplicate(null)
	if err != nil {
		t.Skip("needs descriptors: ", err)
	}
	defer file.Close()
	repeat := func(n int, entry Entry) []Entry {
		entries := make([]Entry, n)
		for i := range entries {
			entries[i] = entry
		}
		return entries
	}
	long := strings.Repeat("x", MaxName)
	for _, test := range []struct {
		name    string
		entries []Entry
		want    []int // entries of each offer
	}{
		{"none", nil, []int{0}},
		{"one", repeat(1, Entry{Descriptor: file}), []int{1}},
		{"253 descriptors", repeat(253, Entry{Descriptor: file}), []int{253}},
		{"254 descriptors", repeat(254, Entry{Descriptor: file}), []int{253, 1}},
		{"large values", repeat(3, Entry{Data: make([]byte, MaxData)}), []int{1, 1, 1}},
		{"many small values", repeat(1500, Entry{Data: []byte{1}}), []int{1024, 476}},
		{"long names and a large value", append(repeat(1000, Entry{Kind: long, Name: long}), Entry{Data: make([]byte, MaxData), Name: long, Address: long}), []int{722, 278, 1}},
	} {
		var have []int
		next := uint64(1)
		offers := Offers(test.entries)
		for i, offer := range offers {
			have = append(have, len(offer.Entries))
			for _, entry := range offer.Entries {
				if entry.ID != next {
					t.Errorf("%s: want id %d, have %d", test.name, next, entry.ID)
				}
				next++
			}
			if want, have := i < len(offers)-1, offer.More; want != have {
				t.Errorf("%s: offer %d: want more %v, have %v", test.name, i, want, have)
			}
			if offer.Token = parse(t, secret); offer.check() != nil {
				t.Errorf("%s: offer %d: %v", test.name, i, offer.check())
			}
			if _, err := wire.AppendFrame(nil, kindOffer, offer); err != nil {
				t.Errorf("%s: offer %d: %v", test.name, i, err)
			}
		}
		if !reflect.DeepEqual(test.want, have) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, have)
		}
	}
}

func TestRefusedErrorQuotesAndShortensThePeersText(t *testing.T) {
	err := error(&RefusedError{Sentinel: ErrRefused, Reason: "to\x1b[31mken", Detail: strings.Repeat("\n", 10_000)})
	if !errors.Is(err, ErrRefused) {
		t.Errorf("want ErrRefused, have %v", err)
	}
	if text := err.Error(); len(text) > 1024 || strings.ContainsAny(text, "\n\x1b") {
		t.Errorf("want at most 1024 printable bytes, have %d: %q", len(text), text)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	golden, err := os.ReadFile("testdata/v1.golden")
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(golden) {
		_, digits, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		frame, err := hex.DecodeString(digits)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame[4], frame[wire.HeaderSize:])
	}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		message, err := decodeMessage(kind, body)
		if err != nil {
			return
		}
		frame, err := wire.AppendFrame(nil, message.kind(), message)
		if err != nil {
			t.Fatalf("%T was accepted and cannot be encoded: %v", message, err)
		}
		again, err := decodeMessage(kind, frame[wire.HeaderSize:])
		if err != nil {
			t.Fatalf("%T: own encoding is refused: %v", message, err)
		}
		second, err := wire.AppendFrame(nil, again.kind(), again)
		if err != nil || !bytes.Equal(frame, second) {
			t.Fatalf("%T: encoding is not stable: %x, %x, %v", message, frame, second, err)
		}
	})
}
