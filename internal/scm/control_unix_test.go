//go:build linux || darwin || freebsd

package scm

import (
	"errors"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestParseControl(t *testing.T) {
	rights := unix.UnixRights
	for name, test := range map[string]struct {
		control []byte
		fds     []int
		bad     bool
	}{
		"nothing":          {nil, nil, false},
		"one":              {rights(7), []int{7}, false},
		"two messages":     {append(rights(7, 8), rights(9)...), []int{7, 8, 9}, false},
		"no padding":       {rights(7)[:unix.CmsgLen(4)], []int{7}, false},
		"empty message":    {rights(), nil, false},
		"cut header":       {append(rights(7), 1, 2, 3), []int{7}, true},
		"cut data":         {append(rights(7), rights(8)[:unix.CmsgLen(3)]...), []int{7}, true},
		"length 0":         {append(rights(7), withLen(rights(8), 0)...), []int{7}, true},
		"length too large": {append(rights(7), withLen(rights(8), 1<<20)...), []int{7}, true},
		"part of one":      {append(withLen(rights(7, 8), unix.CmsgLen(6)), rights(9)...), []int{7, 9}, true},
		"other type":       {append(withType(rights(7), unix.SOL_SOCKET, 99), rights(9)...), []int{9}, true},
		"other level":      {append(withType(rights(7), 99, unix.SCM_RIGHTS), rights(9)...), []int{9}, true},
	} {
		t.Run(name, func(t *testing.T) {
			fds, err := parseControl(test.control)
			if !slices.Equal(fds, test.fds) {
				t.Errorf("have %v, want %v", fds, test.fds)
			}
			if errors.Is(err, ErrControlMessage) != test.bad || (err != nil) != test.bad {
				t.Errorf("have error %v, want one: %v", err, test.bad)
			}
		})
	}
}

func FuzzParseControl(f *testing.F) {
	f.Add(unix.UnixRights(3, 4, 5))
	f.Add(append(unix.UnixRights(3), unix.UnixRights(4)...))
	f.Add(withType(unix.UnixRights(3), unix.SOL_SOCKET, scmPidfd))
	f.Add(unix.UnixRights(3)[:unix.CmsgLen(2)])
	f.Fuzz(func(t *testing.T, b []byte) {
		before := slices.Clone(b)
		fds, err := parseControl(b)
		if !slices.Equal(b, before) {
			t.Error("the input changed")
		}
		if 4*len(fds) > len(b) {
			t.Errorf("%d descriptors from %d bytes", len(fds), len(b))
		}
		if err != nil {
			if !errors.Is(err, ErrControlMessage) {
				t.Errorf("have %v, want ErrControlMessage", err)
			}
			return
		}
		messages, err := unix.ParseSocketControlMessage(b)
		if err != nil {
			t.Fatalf("x/sys/unix refuses what is accepted here: %v", err)
		}
		var want []int
		for _, m := range messages {
			some, err := unix.ParseUnixRights(&m)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, some...)
		}
		if !slices.Equal(fds, want) {
			t.Errorf("have %v, want %v", fds, want)
		}
	})
}

func withLen(b []byte, length int) []byte {
	(*unix.Cmsghdr)(unsafe.Pointer(&b[0])).SetLen(length)
	return b
}

func withType(b []byte, level, kind int32) []byte {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	return b
}
