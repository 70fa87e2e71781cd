package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRoutes(t *testing.T) {
	list, err := parseRoutes("test", strings.NewReader(`
# all
route /         http://127.0.0.1:1
route /api      http://127.0.0.1:2,http://127.0.0.1:3 # take turns
	route /api/v2/	http://[::1]:4/base
`))
	if err != nil {
		t.Fatal(err)
	}
	rs := newRoutes(list)
	for path, want := range map[string]string{
		"/":          "http://127.0.0.1:1",
		"/apis":      "http://127.0.0.1:1",
		"/api":       "http://127.0.0.1:2",
		"/api/x":     "http://127.0.0.1:2",
		"/api/v2":    "http://[::1]:4/base",
		"/api/v2/x":  "http://[::1]:4/base",
		"/api/v22":   "http://127.0.0.1:2",
		"*":          "",
		"/API/lower": "http://127.0.0.1:1",
	} {
		have := ""
		if r := rs.find(path); r != nil {
			have = r.upstreams[0].String()
		}
		if have != want {
			t.Errorf("%s: want %q, have %q", path, want, have)
		}
	}
	api := rs.find("/api")
	for i, want := range []string{"2", "3", "2"} {
		if have := api.next().Port(); have != want {
			t.Errorf("request %d: want port %s, have %s", i+1, want, have)
		}
	}
}

func TestBrokenConfigurationsAreRefusedWithTheLine(t *testing.T) {
	var many strings.Builder
	for i := range maxRoutes + 1 {
		fmt.Fprintf(&many, "route /%d http://127.0.0.1:1\n", i)
	}
	for _, test := range []struct {
		text   string
		line   int
		reason string
	}{
		{"\nrewrite / http://127.0.0.1:1", 2, `unknown word "rewrite", want "route"`},
		{"route /", 1, "route with 1 arguments, want 2"},
		{"route / http://a http://b", 1, "route with 3 arguments, want 2"},
		{"route api http://a", 1, `prefix "api", want one that begins with /`},
		{"route / http://a\n\nroute / http://b", 3, `route "/" again, first in line 1`},
		{"route /a http://a\nroute /a/ http://b", 2, `route "/a" again, first in line 1`},
		{"route / https://a", 1, `upstream "https://a": want an http:// URL`},
		{"route / http://a,", 1, `upstream "": want an http:// URL`},
		{"route / http://:80", 1, `upstream "http://:80": want a host`},
		{"route / http://a:port", 1, `invalid port ":port" after host`},
		{"route / http://user@a", 1, `want a host and a path, and nothing else`},
		{"route / http://a?b=c", 1, `want a host and a path, and nothing else`},
		{"# " + strings.Repeat("x", maxConfigLine), 1, "the line is longer than 8192 bytes"},
		{strings.Repeat("#\n", maxConfigFile/2) + "#", maxConfigFile/2 + 2, "the file is longer than 1048576 bytes"},
		{many.String(), maxRoutes + 1, "more than 1000 routes"},
		{"route / " + strings.Repeat("http://a,", maxUpstreams) + "http://a", 1, "more than 64 upstreams of a route"},
	} {
		_, err := parseRoutes("FILE", strings.NewReader(test.text))
		have, ok := errors.AsType[*configError](err)
		if !ok || have.Line != test.line || !strings.Contains(have.Reason, test.reason) {
			t.Errorf("%.40q: want line %d: %s; have %v", test.text, test.line, test.reason, err)
		}
	}
}

func TestConfigurationNeedsARoute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes")
	if _, err := readRoutes(path, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("want ErrNotExist, have %v", err)
	}
	if err := os.WriteFile(path, []byte("# nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readRoutes(path, nil); err == nil || !strings.Contains(err.Error(), "no route") {
		t.Errorf("want an error, have %v", err)
	}
	upstream, err := parseUpstream("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	rs, err := readRoutes(path, upstream)
	if err != nil || rs.find("/x").upstreams[0] != upstream {
		t.Errorf("want the upstream of the flag, have %v, %v", rs, err)
	}
}

func FuzzParseRoutes(f *testing.F) {
	f.Add("route / http://127.0.0.1:1\n")
	f.Add("route /a http://a,http://[::1]:2/b # c\nroute /b http://b")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseRoutes("FILE", strings.NewReader(text))
		if err != nil {
			if have, ok := errors.AsType[*configError](err); !ok || have.Line < 1 || have.Line > strings.Count(text, "\n")+2 {
				t.Errorf("want a line of the file, have %v", err)
			}
			return
		}
		for prefix, r := range list {
			if newRoutes(list).find(prefix) != r || r.next().Hostname() == "" {
				t.Errorf("route %q is not found, or has no host", prefix)
			}
		}
	})
}
