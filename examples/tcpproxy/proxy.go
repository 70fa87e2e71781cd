package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/segue-go/segue/listener"
	"github.com/segue-go/segue/restart"
)

// pairKind is what a client's connection and its upstream's are called between two generations.
const pairKind = "tcpproxy pair"

// proxy passes connections on to upstreams.
type proxy struct {
	gen       *restart.Generation
	ln        *listener.Listener
	pairs     *restart.Relays
	upstreams []string
	dialer    net.Dialer
	maxConns  int

	turn    atomic.Uint64 // whose it is
	refused atomic.Int64  // connections that were too many, since that was logged
	logged  atomic.Int64  // when that was, in ns since 1970
}

func newProxy(gen *restart.Generation, ln *listener.Listener, cfg config) *proxy {
	return &proxy{
		gen: gen, ln: ln, upstreams: cfg.upstreams, maxConns: cfg.maxConns,
		dialer: net.Dialer{Timeout: cfg.dialTimeout},
		pairs:  gen.Relays(pairKind, restart.RelayOptions{IdleTimeout: cfg.idle, Ended: logEnd}),
	}
}

// serve serves one client. Its connection is closed when serve returns, unless it was handed on.
func (p *proxy) serve(ctx context.Context, client *listener.Conn) {
	if p.ln.Conns() > p.maxConns { // those that were handed on to this generation count, too
		p.refuse(client)
		return
	}
	// Not with ctx: if the generation leaves meanwhile, the pair still comes about, and moves.
	upstream, err := p.dial(context.WithoutCancel(ctx))
	if err != nil {
		slog.Warn("no upstream", "client", client.RemoteAddr().String(), "error", err)
		_ = client.SetLinger(0) // a reset, as the upstream itself would have answered
		return
	}
	conn, err := p.gen.Own(upstream)
	if err != nil {
		_ = upstream.Close()
		slog.Error("cannot relay", "error", err)
		return
	}
	p.pairs.Serve(ctx, client, conn)
}

// dial dials the upstream whose turn it is, and the others after it, once each.
func (p *proxy) dial(ctx context.Context) (net.Conn, error) {
	first := p.turn.Add(1) - 1
	var errs []error
	for i := range p.upstreams {
		conn, err := p.dialer.DialContext(ctx, "tcp", p.upstreams[(first+uint64(i))%uint64(len(p.upstreams))])
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// refuse logs that there are too many connections, once a second.
func (p *proxy) refuse(client *listener.Conn) {
	_ = client.SetLinger(0)
	n := p.refused.Add(1)
	now, last := time.Now().UnixNano(), p.logged.Load()
	if now-last < int64(time.Second) || !p.logged.CompareAndSwap(last, now) {
		return
	}
	p.refused.Add(-n)
	slog.Warn("too many connections", "limit", p.maxConns, "refused", n, "last", client.RemoteAddr().String())
}

// logEnd tells of pairs that ended in another way than by both of them saying so.
func logEnd(client, upstream *listener.Conn, relay *listener.Relay, err error) {
	if err == nil || errors.Is(err, net.ErrClosed) {
		return // the generation logs those that were closed at the end of the drain
	}
	up, down := relay.Passed()
	slog.Info("connection ended", "client", client.RemoteAddr().String(), "upstream", upstream.RemoteAddr().String(),
		"bytes", fmt.Sprintf("%d up, %d down", up, down), "error", err)
}
