package restart

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/segue-go/segue/listener"
)

// HTTP serves srv on ln for as long as this generation serves, over TLS if srv.TLSConfig has certificates. A server may
// serve several listeners.
//
// When the generation hands over, HTTP/1 connections move to the successor, those in the middle of a request at its end. What
// does not move, or cannot because it is encrypted, gets "Connection: close" with its next response; HTTP/2 clients get
// GOAWAY at once. net/http's Shutdown is not used before the end of Options.Drain, because it drops requests that
// arrive on a new connection and cuts half-read headers. To that end HTTP sets srv.Handler, ConnState, ConnContext and BaseContext, which
// call the ones that were there, and srv.TLSNextProto, but for what is set already: call it when srv is complete. Functions of
// srv.RegisterOnShutdown are not called before the end of the drain; Leaving tells what they would. Connections that were hijacked count, too: they have until the end of Options.Drain, unless they are handed on (Hijack).
func (g *Generation) HTTP(ln *listener.Listener, srv *http.Server) {
	server, ok := g.services[srv]
	if !ok {
		server = newHTTPServer(srv)
		g.services[srv] = server
	}
	server.listeners = append(server.listeners, ln)
	if !server.overTLS() {
		g.movable[ln.Name()] = &origin{ln, server}
	}
	interrupted := make(chan struct{})
	g.Add(
		func() error { return g.serveHTTP(server, ln, interrupted) },
		func(error) { close(interrupted) },
	)
}

func (g *Generation) serveHTTP(server *httpServer, ln *listener.Listener, interrupted <-chan struct{}) error {
	served := make(chan error, 1)
	go func() { served <- server.serve(ln) }()
	go func() { _ = server.serve(ln.Adopted()) }() // ends when this function does
	defer ln.Adopted().Close()
	select {
	case err := <-served:
		select {
		case <-g.leaving:
		default:
			return err
		}
	case <-interrupted:
		<-g.leaving
	}
	ctx, cancel := g.drainContext()
	defer cancel()
	g.intake.close(ctx)
	if cut := server.drain(ctx, ln, g.mover()); cut > 0 {
		g.cut.Add(int64(cut))
		g.log.Warn("closed connections at the end of the drain", "listener", ln.Name(), "cut", cut, "drain", g.options.Drain)
	}
	return nil
}

// httpServer is an http.Server that can be drained without a request lost.
type httpServer struct {
	*http.Server
	// http2 owns the HTTP/2 connections of Server; nil if the user brought an implementation, or wants none. Only Shutdown
	// makes net/http send GOAWAY, and Shutdown of Server would cut its HTTP/1 connections.
	http2     *http.Server
	listeners []*listener.Listener
	leaving   atomic.Bool
	mover     atomic.Pointer[mover] // what HTTP/1 connections without TLS move with, so that they need not end; nil if they do not
	cutting   sync.Once
	cut       map[*listener.Listener]int // how many connections of each were closed at the end of the drain
}

func newHTTPServer(srv *http.Server) *httpServer {
	s := &httpServer{Server: srv}
	handler := srv.Handler
	if handler == nil {
		handler = http.DefaultServeMux
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.leaving.Load() && s.ends(r) {
			// HTTP/2's server takes it as an order to send GOAWAY (net/http/h2_bundle.go, writeChunk).
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
	if srv.TLSNextProto == nil && wantsHTTP2(srv) {
		s.adoptHTTP2()
	}
	s.markHTTP2()
	if base := srv.BaseContext; base != nil {
		srv.BaseContext = func(ln net.Listener) context.Context { return base(s.listenerOf(ln)) }
	}
	remember := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if c, ok := conn.(*listener.Conn); ok {
			ctx = context.WithValue(ctx, connKey{}, c)
		}
		if remember != nil {
			ctx = remember(ctx, conn)
		}
		return ctx
	}
	observe := srv.ConnState
	srv.ConnState = func(conn net.Conn, state http.ConnState) {
		if c, ok := conn.(*listener.Conn); ok { // else it is TLS, which does not move
			mark(c, state)
		}
		if observe != nil {
			observe(conn, state)
		}
	}
	return s
}

// listenerOf returns the listener whose connections ln accepts, if ln is that of those that move; else ln.
func (s *httpServer) listenerOf(ln net.Listener) net.Listener {
	for _, l := range s.listeners {
		if ln == l.Adopted() {
			return l
		}
	}
	return ln
}

// mark tells a connection where its server is.
func mark(c *listener.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.MarkFresh()
	case http.StateIdle:
		c.MarkIdle()
	case http.StateHijacked:
		c.ClearBoundary()
	}
}

// ends reports whether the answer to r is to announce the end of its connection, if the server is leaving.
func (s *httpServer) ends(r *http.Request) bool {
	if r.Header.Get("Upgrade") != "" {
		return false // the answer may be to another protocol
	}
	mover := s.mover.Load()
	if mover == nil || !mover.takes.Load() || r.ProtoMajor != 1 {
		return true
	}
	c, ok := r.Context().Value(connKey{}).(*listener.Conn)
	return !ok || c.Refused() // encrypted, or one that the successor does not want
}

// connKey is the key of a request's *listener.Conn in its context.
type connKey struct{}

// overTLS reports whether the server's connections are encrypted. Their keys are in this process, so they cannot move.
func (s *httpServer) overTLS() bool {
	config := s.TLSConfig
	return config != nil && (len(config.Certificates) > 0 || config.GetCertificate != nil || config.GetConfigForClient != nil)
}

func wantsHTTP2(srv *http.Server) bool {
	return srv.Protocols == nil || srv.Protocols.HTTP2() || srv.Protocols.UnencryptedHTTP2()
}

// adoptHTTP2 lets another http.Server own the HTTP/2 connections of this one. net/http hands a connection that negotiated
// h2 to a function in TLSNextProto, with the server whose handler and settings are to be used; that function, and the
// list of connections that Shutdown sends GOAWAY to, belong to the server that they were made for. So they are made for
// a second one, which never has a listener.
func (s *httpServer) adoptHTTP2() {
	owner := &http.Server{
		Protocols:   s.Protocols,
		HTTP2:       s.HTTP2,
		IdleTimeout: s.IdleTimeout,
		ReadTimeout: s.ReadTimeout,
	}
	_ = owner.Serve(noListener{}) // sets TLSNextProto up, and returns
	if owner.TLSNextProto == nil {
		return // switched off by GODEBUG=http2server=0
	}
	s.http2 = owner
	s.TLSNextProto = owner.TLSNextProto
}

// markHTTP2 notes which connections without TLS speak HTTP/2. Its server calls ConnState for them, too, with the states of HTTP/1, and
// may read as much at once as that of HTTP/1 does between two requests.
func (s *httpServer) markHTTP2() {
	const key = "unencrypted_http2" // net/http/server.go, nextProtoUnencryptedHTTP2
	serve, ok := s.TLSNextProto[key]
	if !ok {
		return
	}
	s.TLSNextProto = maps.Clone(s.TLSNextProto) // it may be the user's, for several servers
	s.TLSNextProto[key] = func(srv *http.Server, conn *tls.Conn, handler http.Handler) {
		// As net/http passes a connection to a function for TLS (h2_bundle.go, http2unencryptedNetConnFromTLSConn).
		if wrapped, ok := conn.NetConn().(interface{ UnencryptedNetConn() net.Conn }); ok {
			if c, ok := wrapped.UnencryptedNetConn().(*listener.Conn); ok {
				c.ClearBoundary()
			}
		}
		serve(srv, conn, handler)
	}
}

func (s *httpServer) serve(ln net.Listener) error {
	if s.overTLS() {
		return s.ServeTLS(ln, "", "")
	}
	return s.Serve(ln)
}

// drain waits until every connection that ln accepted is closed, or, if there is a mover, has moved. At the end of ctx it
// closes those that are left, and returns their number.
func (s *httpServer) drain(ctx context.Context, ln *listener.Listener, mover *mover) (cut int) {
	if !s.overTLS() {
		s.mover.Store(mover)
	}
	s.leaving.Store(true)
	if s.http2 != nil {
		_ = s.http2.Shutdown(ctx) // returns at once: it has no HTTP/1 connections to wait for
	}
	if waitEmpty(ctx, ln, mover) == nil {
		return 0
	}
	s.cutting.Do(func() { // for all listeners at once: Close does not know one from the other
		s.cut = make(map[*listener.Listener]int)
		for _, ln := range s.listeners {
			s.cut[ln] = -int(ln.Ended())
		}
		_ = s.Close() // says goodbye where the protocol has a word for it: TLS
		for _, ln := range s.listeners {
			ln.CloseConns()
			s.cut[ln] += int(ln.Ended()) // not those that moved in this instant
		}
	})
	return s.cut[ln]
}

// waitEmpty returns nil when ln has no connection, and none of them can come back.
func waitEmpty(ctx context.Context, ln drainable, mover *mover) error {
	for {
		if err := ln.WaitConns(ctx); err != nil || mover == nil {
			return err
		}
		if err := mover.departures.wait(ctx); err != nil {
			return err
		}
		if ln.Conns() == 0 {
			return nil
		}
	}
}

// noListener makes http.Server.Serve return as soon as it has set itself up.
type noListener struct{}

func (noListener) Accept() (net.Conn, error) { return nil, io.EOF }
func (noListener) Close() error              { return nil }
func (noListener) Addr() net.Addr            { return &net.TCPAddr{} }

// ListenAndServe is http.Server.ListenAndServe for a server that is replaced on SIGHUP, without a failed request, and
// drained on SIGTERM and SIGINT. It returns nil when this generation's work is done. Options are those of the zero value.
func ListenAndServe(srv *http.Server) error { return listenAndServe(srv, ":http") }

// ListenAndServeTLS is ListenAndServe over TLS. The files are read at each generation's start; both may be empty if
// srv.TLSConfig has certificates.
func ListenAndServeTLS(srv *http.Server, certFile, keyFile string) error {
	if certFile != "" || keyFile != "" {
		certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return err
		}
		config := &tls.Config{}
		if srv.TLSConfig != nil {
			config = srv.TLSConfig.Clone()
		}
		config.Certificates = append(config.Certificates, certificate)
		srv.TLSConfig = config
	}
	if srv.TLSConfig == nil {
		return errors.New("restart: no certificate")
	}
	return listenAndServe(srv, ":https")
}

func listenAndServe(srv *http.Server, address string) error {
	generation, err := New(Options{})
	if err != nil {
		return err
	}
	if srv.Addr != "" {
		address = srv.Addr
	}
	ln, err := generation.Listen(context.Background(), "http", "tcp", address)
	if err != nil {
		generation.abandon()
		return err
	}
	generation.HTTP(ln, srv)
	return generation.Run(context.Background())
}
