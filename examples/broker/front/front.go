package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/listener"
)

// mostTries is how many backends are asked to take one connection.
const mostTries = 2

// backend takes connections: a handoff.Pool, or a bareBackend.
type backend interface {
	Offer(client *handoff.Client, done func(error))
	Close() error
}

// front gives each client to a backend, or passes its bytes on.
type front struct {
	config
	backends []backend
	policy   handoff.Policy

	turns       atomic.Uint64
	accepted    atomic.Uint64
	handedOver  atomic.Uint64
	reconnected atomic.Uint64
	lost        atomic.Uint64 // no owner is better than two, or nobody was there

	mu        sync.Mutex
	fallbacks map[handoff.Fallback]int
}

func newFront(cfg config) *front {
	f := &front{config: cfg, fallbacks: make(map[handoff.Fallback]int)}
	for _, path := range cfg.backends {
		if cfg.token.IsZero() {
			f.backends = append(f.backends, &handoff.Pool{Path: path, Policy: &f.policy, Deadline: cfg.deadline})
		} else {
			f.backends = append(f.backends, &bareBackend{path, cfg.token, &f.policy})
		}
	}
	return f
}

// Accept is tried again after this time when it fails for a reason that can pass, like a lack of descriptors.
const acceptPause = 10 * time.Millisecond

func (f *front) serve(ln *listener.Listener) error {
	for {
		conn, err := ln.AcceptConn()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			slog.Warn("cannot accept", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		f.place(conn, f.accepted.Add(1))
	}
}

// place finds somebody who serves the client. It does not wait.
func (f *front) place(conn *listener.Conn, number uint64) {
	client := &handoff.Client{Conn: conn, Service: f.service, Correlation: number, Relay: f.relay}
	f.offer(client, f.turns.Add(1), mostTries, func(err error) {
		switch {
		case err == nil:
			f.handedOver.Add(1)
			_ = conn.Close()
		case handoff.Reached(err): // a backend may be serving it
			f.lose("connection is nobody's", err)
			_ = conn.Close()
		default:
			f.count(err)
			go f.reconnectClient(client, conn, err)
		}
	})
}

// offer tries backends in turn.
func (f *front) offer(client *handoff.Client, turn uint64, tries int, done func(error)) {
	if len(f.backends) == 0 {
		done(fmt.Errorf("%w: no -backend", handoff.ErrPolicy))
		return
	}
	f.backends[turn%uint64(len(f.backends))].Offer(client, func(err error) {
		// After an ErrAckTimeout the client has waited long enough.
		if err == nil || handoff.Reached(err) || errors.Is(err, handoff.ErrAckTimeout) || tries == 1 || len(f.backends) == 1 {
			done(err)
			return
		}
		f.offer(client, turn+1, tries-1, done)
	})
}

// reconnectClient serves a client that no backend has taken.
func (f *front) reconnectClient(client *handoff.Client, conn *listener.Conn, err error) {
	defer conn.Close()
	_ = client.Decline(err) // if it has gone, the proxy finds out
	f.proxy(conn, client.Correlation)
}

func (f *front) count(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	reason := handoff.FallbackFor(err)
	if f.fallbacks[reason]++; f.fallbacks[reason] == 1 {
		slog.Warn("reconnect", "fallback", string(reason), "error", err) // of the others the last line of the log tells
	}
}

func (f *front) lose(message string, err error) {
	f.lost.Add(1)
	slog.Warn(message, "error", err)
}

// lingering is for how long a client may go on sending to a backend that has ended its side.
const lingering = 10 * time.Second

// proxy passes bytes on between the client and a backend's own address.
func (f *front) proxy(client *listener.Conn, number uint64) {
	server, err := f.dial(number)
	if err != nil {
		f.lose("cannot reconnect", err)
		return
	}
	defer server.Close()
	f.reconnected.Add(1)
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.CloseWrite()
	})
	if _, err := io.Copy(client, server); err != nil { // the client is not to take a part of an answer for the whole
		_ = client.SetLinger(0)
		_, _ = client.Close(), server.Close()
	}
	_ = client.CloseWrite()
	_ = client.SetReadDeadline(time.Now().Add(lingering))
	both.Wait()
}

// dial tries the addresses in turn, and again until f.patience is at its end.
func (f *front) dial(number uint64) (*net.TCPConn, error) {
	if len(f.reconnect) == 0 {
		return nil, errors.New("no -reconnect")
	}
	ctx, cancel := context.WithTimeout(context.Background(), f.patience)
	defer cancel()
	var dialer net.Dialer
	for try := number; ; try++ {
		conn, err := dialer.DialContext(ctx, "tcp", f.reconnect[try%uint64(len(f.reconnect))])
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		if tried := try - number + 1; tried%uint64(len(f.reconnect)) != 0 {
			continue
		}
		select {
		case <-time.After(acceptPause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (f *front) close() {
	for _, backend := range f.backends {
		_ = backend.Close()
	}
}

// reasons lists the fallbacks for the log.
func (f *front) reasons() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for reason, n := range f.fallbacks {
		list = append(list, fmt.Sprintf("%s: %d", reason, n))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// bareBackend is one that is sent a token and a descriptor, and does not answer.
type bareBackend struct {
	path   string
	token  handoff.Token
	policy *handoff.Policy
}

// bareTimeout bounds a dial. The socket's queue may be full.
const bareTimeout = time.Second

func (b *bareBackend) Offer(client *handoff.Client, done func(error)) {
	if err := b.policy.Decide(b.path, client.Conditions).Err(); err != nil {
		done(err)
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), bareTimeout)
		defer cancel()
		err := handoff.DialBare(ctx, b.path, b.token, client.Conn.(*listener.Conn))
		b.policy.Failed(b.path, err) // nil is a success
		done(err)
	}()
}

func (b *bareBackend) Close() error { return nil }
