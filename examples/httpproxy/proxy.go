package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segue-go/segue/restart"
)

// proxy passes requests on to the upstream of their route.
type proxy struct {
	reverse  httputil.ReverseProxy
	switcher switcher
	routes   atomic.Pointer[routes] // in force
}

func newProxy(gen *restart.Generation, in *routes) *proxy {
	dialer := &net.Dialer{Timeout: dialTimeout}
	p := &proxy{switcher: switcher{
		gen:    gen,
		dialer: dialer,
		pairs:  gen.Relays(pairKind, restart.RelayOptions{IdleTimeout: pairIdle, Ended: logEnd}),
		plain: &http.Transport{
			DialContext:           dialer.DialContext,
			DisableCompression:    true, // a client that wants it asks for it
			MaxIdleConns:          1024,
			MaxIdleConnsPerHost:   256,
			IdleConnTimeout:       90 * time.Second,
			ResponseHeaderTimeout: answerTimeout,
		},
	}}
	p.routes.Store(in)
	p.reverse = httputil.ReverseProxy{
		Rewrite:      p.rewrite,
		Transport:    &p.switcher,
		ErrorHandler: p.fail,
		BufferPool:   buffers{},
		ErrorLog:     slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	return p
}

const (
	dialTimeout   = 5 * time.Second
	answerTimeout = time.Minute // until the header has come
	pairIdle      = time.Hour
)

// routeKey is the key of a request's *route in its context.
type routeKey struct{}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route := p.routes.Load().find(r.URL.Path)
	if route == nil {
		http.Error(w, "no route", http.StatusNotFound)
		return
	}
	p.reverse.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), routeKey{}, route)))
}

func (p *proxy) rewrite(r *httputil.ProxyRequest) {
	r.SetURL(r.In.Context().Value(routeKey{}).(*route).next())
	r.Out.Host = r.In.Host
	r.SetXForwarded()
}

// fail answers a request that got no answer, and goes on with one whose answer is another protocol.
func (p *proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	if to, ok := errors.AsType[*switched](err); ok {
		p.switcher.relay(w, r, to)
		return
	}
	if r.Context().Err() != nil {
		return // the client has gone
	}
	slog.Warn("no answer", "upstream", r.URL.Host, "path", r.URL.Path, "error", err)
	status := http.StatusBadGateway
	if failed, ok := errors.AsType[net.Error](err); ok && failed.Timeout() {
		status = http.StatusGatewayTimeout
	}
	http.Error(w, http.StatusText(status), status)
}

// buffers are what bodies are copied through.
type buffers struct{}

var free = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func (buffers) Get() []byte  { return free.Get().(*[32 << 10]byte)[:] }
func (buffers) Put(b []byte) { free.Put((*[32 << 10]byte)(b)) }
