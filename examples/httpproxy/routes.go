package main

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
)

// route is where requests go whose path begins with prefix.
type route struct {
	prefix    string
	upstreams []*url.URL
	turn      atomic.Uint64 // whose it is
}

func newRoute(prefix string, upstreams []*url.URL) *route {
	return &route{prefix: prefix, upstreams: upstreams}
}

// next is the upstream whose turn it is.
func (r *route) next() *url.URL {
	return r.upstreams[(r.turn.Add(1)-1)%uint64(len(r.upstreams))]
}

func (r *route) fits(path string) bool {
	rest, ok := strings.CutPrefix(path, r.prefix)
	return ok && (rest == "" || rest[0] == '/' || r.prefix == "/")
}

// routes are those of a configuration, the longest prefix first. They do not change.
type routes struct{ list []*route }

func newRoutes(list map[string]*route) *routes {
	rs := new(routes)
	for _, r := range list {
		rs.list = append(rs.list, r)
	}
	slices.SortFunc(rs.list, func(a, b *route) int {
		return cmp.Or(cmp.Compare(len(b.prefix), len(a.prefix)), cmp.Compare(a.prefix, b.prefix))
	})
	return rs
}

// find returns the route for a path, nil if there is none.
func (rs *routes) find(path string) *route {
	path = cmp.Or(path, "/") // of a request for http://host
	for _, r := range rs.list {
		if r.fits(path) {
			return r
		}
	}
	return nil
}
