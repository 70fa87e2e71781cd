package handoff

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var secret = []byte("0123456789abcdef")

func parse(t *testing.T, wire []byte) Token {
	t.Helper()
	token, err := ParseToken(wire)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestInvariant4TokenPrintsRedacted(t *testing.T) {
	token := parse(t, secret)
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	type hidden struct{ token Token }
	type shown struct{ Token Token }

	printed := map[string]string{
		"slog text": func() string {
			var out bytes.Buffer
			slog.New(slog.NewTextHandler(&out, nil)).Info("m", "token", token, "in", shown{token}, "hidden", hidden{token})
			return out.String()
		}(),
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%d", "%s", "%q", "%08b", "%c", "%U"} {
		printed[verb] = fmt.Sprintf(verb, token)
		printed[verb+" pointer"] = fmt.Sprintf(verb, &token)
		printed[verb+" in a struct"] = fmt.Sprintf(verb, shown{token})
		printed[verb+" in an unexported field"] = fmt.Sprintf(verb, hidden{token})
		printed[verb+" in a slice"] = fmt.Sprintf(verb, []Token{token})
		printed[verb+" in a message"] = fmt.Sprintf(verb, &Hello{Token: token})
	}
	logger.Info("m", "token", token, "in", shown{token})
	printed["slog JSON"] = log.String()
	inJSON, err := json.Marshal(map[string]any{"token": token, "in": shown{token}})
	if err != nil {
		t.Fatal(err)
	}
	printed["JSON"] = string(inJSON)

	for how, text := range printed {
		for name, leak := range map[string]string{
			"text": string(secret), "hex": hex.EncodeToString(secret), "decimal": "48 49 50", "decimal list": "48, 49, 50",
			"go": "0x30, 0x31", "binary": "00110000 00110001", "base64": "MDEyMzQ1Njc4OWFiY2RlZg", "characters": "0 1 2 3",
		} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(leak)) {
				t.Errorf("%s: token leaks as %s: %s", how, name, text)
			}
		}
	}
	if want, have := "redacted", fmt.Sprintf("%x", token); want != have {
		t.Errorf("want %q, have %q", want, have)
	}
}

func TestParseTokenTellsApart(t *testing.T) {
	for _, test := range []struct {
		name string
		wire []byte
		want error
	}{
		{"nil", nil, ErrTokenMissing},
		{"empty", []byte{}, ErrTokenMissing},
		{"short", secret[:15], ErrTokenLength},
		{"long", append(append([]byte{}, secret...), 'x'), ErrTokenLength},
		{"right", secret, nil},
	} {
		if _, have := ParseToken(test.wire); !errors.Is(have, test.want) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, have)
		}
	}
}

func TestTokenEqual(t *testing.T) {
	token, same, other := parse(t, secret), parse(t, secret), parse(t, []byte("0123456789abcdeX"))
	for _, test := range []struct {
		name string
		a, b Token
		want bool
	}{
		{"itself", token, token, true},
		{"same bytes", token, same, true},
		{"last byte differs", token, other, false},
		{"zero", token, Token{}, false},
		{"two zeros", Token{}, Token{}, false},
	} {
		if have := test.a.Equal(test.b); test.want != have {
			t.Errorf("%s: want %v, have %v", test.name, test.want, have)
		}
	}
}

func TestTokenIsACopyBothWays(t *testing.T) {
	wire := append([]byte(nil), secret...)
	token := parse(t, wire)
	wire[0]++
	token.Expose()[1]++
	if !token.Equal(parse(t, secret)) {
		t.Error("token shares memory with its wire form")
	}
}

// clock is a time that only a test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func TestInvariant4TokenIsConsumedOnce(t *testing.T) {
	at := &clock{now: time.Unix(1000, 0)}
	store := &TokenStore{Now: at.Now}
	issue := func() Token {
		token, err := store.Issue()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	expect := func(what string, want, have error) {
		t.Helper()
		if !errors.Is(have, want) {
			t.Errorf("%s: want %v, have %v", what, want, have)
		}
	}
	token, other := issue(), issue()
	expect("missing", ErrTokenMissing, store.Redeem(token, nil))
	expect("short", ErrTokenLength, store.Redeem(token, token.Expose()[:3]))
	expect("mismatch", ErrTokenMismatch, store.Redeem(token, other.Expose()))
	expect("pending after all that", nil, store.Redeem(token, token.Expose()))
	expect("replay", ErrTokenNotPending, store.Redeem(token, token.Expose()))
	expect("never issued", ErrTokenNotPending, store.Consume(parse(t, secret)))
	expect("zero", ErrTokenMissing, store.Consume(Token{}))

	if want, have := true, store.Revoke(other); want != have {
		t.Errorf("revoke pending: want %v, have %v", want, have)
	}
	if want, have := false, store.Revoke(other); want != have {
		t.Errorf("revoke again: want %v, have %v", want, have)
	}
	expect("revoked", ErrTokenNotPending, store.Consume(other))

	late := issue()
	at.now = at.now.Add(DefaultTokenTTL)
	expect("expired", ErrTokenExpired, store.Consume(late))
	expect("expired once", ErrTokenNotPending, store.Consume(late))
	just := issue()
	at.now = at.now.Add(DefaultTokenTTL - 1)
	expect("just in time", nil, store.Consume(just))
	if want, have := 0, store.Pending(); want != have {
		t.Errorf("pending: want %d, have %d", want, have)
	}
}

func TestInvariant7TokenStoreIsBounded(t *testing.T) {
	at := &clock{now: time.Unix(1000, 0)}
	store := &TokenStore{Now: at.Now}
	for range DefaultTokenCapacity {
		if _, err := store.Issue(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Issue(); !errors.Is(err, ErrTokenStoreFull) {
		t.Errorf("want ErrTokenStoreFull, have %v", err)
	}
	if err := store.Expect(parse(t, secret)); !errors.Is(err, ErrTokenStoreFull) {
		t.Errorf("announced: want ErrTokenStoreFull, have %v", err)
	}
	at.now = at.now.Add(DefaultTokenTTL)
	if _, err := store.Issue(); err != nil {
		t.Errorf("after expiry of all: want room, have %v", err)
	}
	if want, have := 1, store.Pending(); want != have {
		t.Errorf("pending: want %d, have %d", want, have)
	}
}

func TestTokenStoreMakesRoomAsTokensExpire(t *testing.T) {
	at := &clock{now: time.Unix(1000, 0)}
	store := &TokenStore{Capacity: 2, Now: at.Now}
	for _, test := range []struct {
		after time.Duration
		want  error
	}{
		{0, nil},
		{10 * time.Second, nil},
		{20*time.Second - 1, ErrTokenStoreFull},
		{1, nil}, // the first has expired
		{10*time.Second - 1, ErrTokenStoreFull},
		{1, nil}, // the second
		{0, ErrTokenStoreFull},
		{time.Hour, nil},
	} {
		at.now = at.now.Add(test.after)
		if _, have := store.Issue(); !errors.Is(have, test.want) {
			t.Errorf("at %v: want %v, have %v", at.now, test.want, have)
		}
	}
}

func TestTokenCollisionsAreRetried16Times(t *testing.T) {
	for _, test := range []struct {
		collisions int
		want       error
	}{
		{collisions: 15, want: nil},
		{collisions: 16, want: ErrTokenCollision},
	} {
		random := append(bytes.Repeat(secret, 1+test.collisions), []byte("another 16 bytes")...)
		store := &TokenStore{Random: bytes.NewReader(random)}
		if _, err := store.Issue(); err != nil {
			t.Fatal(err)
		}
		if _, have := store.Issue(); !errors.Is(have, test.want) {
			t.Errorf("%d collisions: want %v, have %v", test.collisions, test.want, have)
		}
	}
	broken := errors.New("no entropy")
	store := &TokenStore{Random: iotest.ErrReader(broken)}
	if _, err := store.Issue(); !errors.Is(err, broken) {
		t.Errorf("source fails: want its error, have %v", err)
	}
}

func TestTokensDiffer(t *testing.T) {
	var store TokenStore
	seen := make(map[string]bool)
	for range 1000 {
		token, err := store.Issue()
		if err != nil {
			t.Fatal(err)
		}
		if bytes := string(token.Expose()); seen[bytes] {
			t.Fatal("token issued twice")
		} else {
			seen[bytes] = true
		}
	}
}

func TestParseTokenText(t *testing.T) {
	for text, want := range map[string]error{
		"":                                   ErrTokenMissing,
		"00":                                 ErrTokenLength,
		"3136207365637265742062797465732100": ErrTokenLength,
		"3136207365637265742062797465732":    ErrTokenDigits,
		"secret":                             ErrTokenDigits,
		"31362073656372657420627974657321":   nil,
	} {
		token, err := ParseTokenText(text)
		if !errors.Is(err, want) || token.IsZero() != (want != nil) {
			t.Errorf("%q: want %v, have %v, zero %v", text, want, err, token.IsZero())
		}
		if err != nil && text != "" && text != "00" && strings.Contains(err.Error(), text) {
			t.Errorf("%q: is shown: %v", text, err)
		}
		if want == nil && string(token.Expose()) != "16 secret bytes!" {
			t.Errorf("%q: have %q", text, token.Expose())
		}
	}
}
