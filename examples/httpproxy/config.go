package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
)

const (
	maxConfigFile = 1 << 20 // bytes
	maxConfigLine = 8 << 10 // bytes
	maxRoutes     = 1000
	maxUpstreams  = 64 // of a route
)

// configError is what is wrong with a line of the configuration file.
type configError struct {
	File   string
	Line   int // from 1
	Reason string
}

func (e *configError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason) }

// readRoutes reads the configuration file, if there is one. What it has no route for goes to upstream, if that is not nil.
func readRoutes(path string, upstream *url.URL) (*routes, error) {
	list := make(map[string]*route)
	if path != "" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		defer file.Close()
		if list, err = parseRoutes(path, file); err != nil {
			return nil, err
		}
	}
	if list["/"] == nil && upstream != nil {
		list["/"] = newRoute("/", []*url.URL{upstream})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("configuration %s has no route, and there is no -upstream", path)
	}
	return newRoutes(list), nil
}

// parseRoutes reads lines of "route PREFIX URL[,URL…]".
func parseRoutes(path string, file io.Reader) (map[string]*route, error) {
	limited := &io.LimitedReader{R: file, N: maxConfigFile + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxConfigLine)
	list := make(map[string]*route)
	where := make(map[string]int) // the lines
	number := 0
	fail := func(format string, args ...any) error {
		return &configError{path, number, fmt.Sprintf(format, args...)}
	}
	for lines.Scan() {
		number++
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		if fields[0] != "route" {
			return nil, fail("unknown word %.40q, want \"route\"", fields[0])
		}
		if len(fields) != 3 {
			return nil, fail("route with %d arguments, want 2: route PREFIX URL[,URL…]", len(fields)-1)
		}
		prefix := fields[1]
		if !strings.HasPrefix(prefix, "/") {
			return nil, fail("prefix %.80q, want one that begins with /", prefix)
		}
		if len(prefix) > 1 {
			prefix = strings.TrimRight(prefix, "/")
		}
		if before, known := where[prefix]; known {
			return nil, fail("route %.80q again, first in line %d", prefix, before)
		}
		if len(list) == maxRoutes {
			return nil, fail("more than %d routes", maxRoutes)
		}
		var upstreams []*url.URL
		for text := range strings.SplitSeq(fields[2], ",") {
			upstream, err := parseUpstream(text)
			if err != nil {
				return nil, fail("%v", err)
			}
			if upstreams = append(upstreams, upstream); len(upstreams) > maxUpstreams {
				return nil, fail("more than %d upstreams of a route", maxUpstreams)
			}
		}
		list[prefix], where[prefix] = newRoute(prefix, upstreams), number
	}
	number++
	if limited.N == 0 {
		return nil, fail("the file is longer than %d bytes", maxConfigFile)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fail("the line is longer than %d bytes", maxConfigLine)
	} else if err != nil {
		return nil, fail("%v", err)
	}
	return list, nil
}

// parseUpstream takes http://host[:port][/path].
func parseUpstream(text string) (*url.URL, error) {
	upstream, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("upstream %.80q: %w", text, errors.Unwrap(err))
	}
	switch {
	case upstream.Scheme != "http":
		return nil, fmt.Errorf("upstream %.80q: want an http:// URL", text)
	case upstream.Hostname() == "":
		return nil, fmt.Errorf("upstream %.80q: want a host", text)
	case upstream.User != nil || upstream.RawQuery != "" || upstream.Fragment != "":
		return nil, fmt.Errorf("upstream %.80q: want a host and a path, and nothing else", text)
	}
	return upstream, nil
}
