package load

import (
	"strings"
	"testing"
	"time"
)

// TestMisbehaviour has one client meet one server that does one thing wrong, at its third request, and is right otherwise.
func TestMisbehaviour(t *testing.T) {
	keepAlive, post := Config{KeepAlive: 1}, Config{Post: 1, Body: 100_000}
	paced := Config{KeepAlive: 1, Interval: 500 * time.Millisecond} // one that comes late, on a busy machine, is not idle
	cut := good[:len(good)-5]
	chunked := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n13\r\ngeneration 3 pid 7\n\r\n"
	tests := map[string]struct {
		cfg  Config
		do   func(turn) bool
		want Report // the causes; Failed is their sum
		says string // in the error, when there is one
	}{
		"answers":                         {keepAlive, say(good, true), Report{}, ""},
		"answers in chunks":               {keepAlive, say(chunked+"0\r\n\r\n", true), Report{}, ""},
		"announces and closes":            {keepAlive, say(announced(good), false), Report{Reconnects: 1}, ""},
		"announces and stays":             {keepAlive, say(announced(good), true), Report{Reconnects: 1}, ""},
		"announces within a failure":      {keepAlive, say(announced(cut), false), Report{Aborted: 1}, "unexpected EOF"},
		"closes after the answer":         {keepAlive, say(good, false), Report{Closed: 1}, "not announced"},
		"closes while idle":               {paced, say(good, false), Report{Closed: 1}, "while idle, not announced: EOF"},
		"closes instead of an answer":     {keepAlive, say("", false), Report{Closed: 1}, "before the answer, not announced: EOF"},
		"resets instead of an answer":     {keepAlive, reset(""), Report{Closed: 1}, "reset by peer"},
		"closes within the status":        {keepAlive, say("HTTP/1.1 2", false), Report{Aborted: 1}, "header of the answer"},
		"closes within the header":        {keepAlive, say(good[:30], false), Report{Aborted: 1}, "header of the answer"},
		"closes within the body":          {keepAlive, say(cut, false), Report{Aborted: 1}, "body of the answer"},
		"resets within the body":          {keepAlive, reset(cut), Report{Aborted: 1}, "reset by peer"},
		"closes before the last chunk":    {keepAlive, say(chunked, false), Report{Aborted: 1}, "body of the answer"},
		"closes within a chunk":           {keepAlive, say(chunked[:len(chunked)-9], false), Report{Aborted: 1}, "unexpected EOF"},
		"says nothing":                    {Config{KeepAlive: 1, Timeout: 50 * time.Millisecond}, say("", true), Report{TimedOut: 1}, "timeout"},
		"stops within the body":           {Config{KeepAlive: 1, Timeout: 50 * time.Millisecond}, say(cut, true), Report{TimedOut: 1}, "timeout"},
		"has an error":                    {keepAlive, say(strings.Replace(good, "200 OK", "500 No", 1), true), Report{Wrong: 1}, "status 500 No"},
		"speaks no HTTP":                  {keepAlive, say("SSH-2.0-OpenSSH_9\r\n\r\n", true), Report{Wrong: 1}, "malformed"},
		"speaks HTTP/1.0":                 {keepAlive, say(strings.Replace(good, "1.1", "1.0", 1), false), Report{Wrong: 1}, "HTTP/1.0"},
		"ends a body with the connection": {keepAlive, say("HTTP/1.1 200 OK\r\n\r\nx", false), Report{Wrong: 1}, "without a length"},
		"answers twice":                   {keepAlive, say(good+good, true), Report{Wrong: 1}, "after the end"},
		"speaks while idle":               {paced, late(good), Report{Wrong: 1}, "no request asked for"},
		"has an endless header":           {keepAlive, say("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 3*maxHeader), true), Report{Wrong: 1}, "header of more than"},
		"echoes":                          {post, echoed(nil), Report{}, ""},
		"echoes and announces":            {post, echoed(announced), Report{Reconnects: 1}, ""},
		"echoes a flipped bit":            {post, echoed(func(s string) string { return s[:len(s)-9] + string([]byte{s[len(s)-9] ^ 1}) + s[len(s)-8:] }), Report{Wrong: 1}, "differs in bytes"},
		"echoes too little": {post, echoed(func(s string) string {
			return strings.Replace(s, "100000", "99999", 1)[:len(s)-2]
		}), Report{Wrong: 1}, "echo of 99999 bytes, sent 100000"},
		"echoes too much":        {post, echoed(func(s string) string { return strings.Replace(s, "100000", "100001", 1) + "x" }), Report{Wrong: 1}, "echo longer"},
		"closes within the echo": {post, echoed(func(s string) string { return s[:len(s)-7777] }), Report{Aborted: 1}, "unexpected EOF"},
		"refuses a post":         {post, say("HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n", false), Report{Wrong: 1}, "status 413"},
		"resets within a post":   {Config{Post: 1, Body: 12 << 20}, reset(""), Report{Closed: 1}, "before the answer"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, 6, func(turn turn) bool {
				if turn.total == 3 {
					return test.do(turn)
				}
				if turn.Method == "POST" {
					return echoed(nil)(turn)
				}
				return say(good, true)(turn)
			})
			got := s.within(t, test.cfg)
			want := test.want
			want.Failed = want.Refused + want.Closed + want.Aborted + want.TimedOut + want.Wrong
			if g, w := causesOf(got), causesOf(want); g != w {
				t.Errorf("got %s\nwant %s\nerrors: %q", g, w, got.Errors)
			}
			if int64(len(got.Errors)) != want.Failed || want.Failed > 0 && !strings.Contains(got.Errors[0], test.says) {
				t.Errorf("errors %q, want %d with %q", got.Errors, want.Failed, test.says)
			}
			if want.Failed > 0 && !strings.Contains(got.Errors[0], " client 1, request ") {
				t.Errorf("error %q does not say whose it is", got.Errors[0])
			}
			if conns, want := s.conns.Load(), 1+want.Failed+want.Reconnects; conns != want {
				t.Errorf("%d connections, want %d", conns, want)
			}
		})
	}
}
