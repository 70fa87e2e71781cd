package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segue-go/segue/internal/load"
)

func TestFrame(t *testing.T) {
	began := time.Unix(1000, 0)
	v := &view{
		demo:  &demo{cfg: config{upgrades: 3, conns: 200, duration: 8 * time.Second}, service: &service{addr: "127.0.0.1:80"}},
		style: styleOf(func(string) string { return "" }),
	}
	s := state{began: began, upgrading: true, chain: []served{{1, 10, 0}, {2, 20, time.Second}}}
	v.frame(began.Add(3*time.Second), load.Report{Requests: 20_000}, s, 40)
	got := v.frame(began.Add(4*time.Second), load.Report{Requests: 25_000, Reconnects: 200, Failed: 3}, s, 40)
	want := []string{
		"200 keep-alive clients and 20 that dial each time, on 127.0.0.1:80",
		"",
		"####################|---------|---------",
		"",
		" 4.0 of 8 s, 1 of 3 upgrades, the next on its way",
		"generation 2, pid 20",
		"25000 requests, «3 failed», 200 reconnects",
		"5000 requests/s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// An upgrade that takes long is no reason to go beyond the end.
	if got := v.frame(began.Add(time.Hour), load.Report{}, s, 40); got[2] != strings.Repeat("#", 40) {
		t.Errorf("after the end: %q", got[2])
	}
}

func TestFit(t *testing.T) {
	colour := style{alert: "<", plain: ">"}
	for _, test := range []struct {
		line  string
		width int
		want  string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "abc"},
		{"a «bc» d", 10, "a <bc> d"},
		{"a «bc» d", 3, "a <b>"}, // what was switched on is switched off
		{"██████", 4, "████"},
		{"abc", 0, ""},
		{"abc", -1, ""},
	} {
		if got := colour.fit(test.line, test.width); got != test.want {
			t.Errorf("%q in %d columns: got %q, want %q", test.line, test.width, got, test.want)
		}
	}
}

func TestStyle(t *testing.T) {
	for _, test := range []struct {
		env    map[string]string
		blocks bool
		colour bool
	}{
		{nil, false, true},
		{map[string]string{"LANG": "C.UTF-8"}, true, true},
		{map[string]string{"LANG": "de_DE.utf8", "NO_COLOR": "1"}, true, false},
		{map[string]string{"LANG": "de_DE.utf8", "LC_ALL": "C"}, false, true},
		{map[string]string{"LANG": "C", "LC_CTYPE": "en_US.UTF-8"}, true, true},
	} {
		s := styleOf(func(name string) string { return test.env[name] })
		if (s.done == "█") != test.blocks || (s.alert != "") != test.colour {
			t.Errorf("%v: got %+v", test.env, s)
		}
	}
}

// TestBar draws bars of any size: each has its width, and as many marks as upgrades are due.
func TestBar(t *testing.T) {
	s := styleOf(func(string) string { return "" })
	for width := 1; width < 80; width++ {
		for upgrades := 1; upgrades < 40; upgrades++ {
			bar := s.bar(0, time.Hour, upgrades, width)
			due := strings.Count(bar, "|")
			if len(bar) != width || due != upgrades && upgrades < width/2 {
				t.Fatalf("%d upgrades in %d columns: %q", upgrades, width, bar)
			}
		}
	}
}
