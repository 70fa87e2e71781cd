//go:build linux

package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/segue-go/segue/listener"
	"github.com/segue-go/segue/restart"
)

// rawConfig is what the service does with raw connections.
type rawConfig struct {
	State int  // bytes of state beside what the echo needs
	Stay  bool // handlers do not hand on what they have
	Pairs bool // connections wait for another one, and each gets what the other sends
}

const (
	rawKind  = "echo"
	pairKind = "pair"
	// noAdopter is the fault of a successor that does not know the kind.
	noAdopter = "no adopter"
)

// rawSuffix is that of impostors with room for connections. They take them no better than those without it.
const rawSuffix = "-raw-connections"

func init() {
	for _, name := range []string{"refuses", "ignores", "hangs-on"} {
		impostors[name+rawSuffix] = impostors[name+"-connections"]
	}
}

// echoer serves connections that get back what they send.
type echoer struct {
	gen    *restart.Generation
	config rawConfig
}

func serveRaw(ctx context.Context, gen *restart.Generation, mux *http.ServeMux, cfg rawConfig, fault string) error {
	ln, err := gen.Listen(ctx, "raw", "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	slog.Info("raw", "address", ln.Addr().String())
	e := &echoer{gen, cfg}
	if cfg.Pairs {
		p := &pairer{e, make(chan waiter)}
		gen.Conns(ln, p.pair)
		gen.AdoptAll(pairKind, p.relay)
		return nil
	}
	gen.Conns(ln, func(ctx context.Context, c *listener.Conn) { e.echo(ctx, c, 0) })
	mux.HandleFunc("/hijack", e.hijackEcho)
	if fault != noAdopter {
		gen.Adopt(rawKind, e.adopt)
	}
	return nil
}

// hijackEcho echoes on a connection that it takes from net/http.
func (e *echoer) hijackEcho(w http.ResponseWriter, r *http.Request) {
	c, err := restart.Hijack(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	if _, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"); err != nil {
		return
	}
	e.echo(e.gen.Context(), c, 0)
}

// adopt goes on with a connection that has echoed as many bytes as its state says.
func (e *echoer) adopt(ctx context.Context, c *listener.Conn, state []byte) {
	if want := 8 + e.config.State; len(state) != want {
		slog.Error("state", "error", fmt.Sprintf("want %d bytes, have %d", want, len(state)))
		return
	}
	if c.Refused() {
		slog.Info("came back", "left", ctx.Err() != nil)
	}
	e.echo(ctx, c, binary.BigEndian.Uint64(state))
}

func (e *echoer) echo(ctx context.Context, c *listener.Conn, echoed uint64) {
	stop := context.AfterFunc(ctx, c.Interrupt)
	defer stop()
	buffer := make([]byte, 16<<10)
	for {
		n, err := c.Read(buffer)
		if n > 1 && n%2 == 1 {
			n--
			c.Unread(buffer[n : n+1]) // so that some is always left when it is time to go
		}
		if _, err := c.Write(buffer[:n]); err != nil {
			return
		}
		echoed += uint64(n)
		switch {
		case errors.Is(err, listener.ErrInterrupted) && !e.config.Stay:
			state := binary.BigEndian.AppendUint64(nil, echoed)
			err := e.gen.Detach(rawKind, append(state, make([]byte, e.config.State)...), c)
			if err == nil {
				return
			}
			slog.Info("stays", "error", err.Error())
		case errors.Is(err, io.EOF):
			slog.Info("echoed", "visits", echoed)
			return
		case err != nil && !errors.Is(err, listener.ErrInterrupted):
			slog.Info("echo failed", "error", err.Error())
			return
		}
	}
}

// pairer connects connections with one another.
type pairer struct {
	*echoer
	waiting chan waiter
}

// waiter is a connection that waits for another one, and is in its hands until done is closed.
type waiter struct {
	conn *listener.Conn
	done chan struct{}
}

func (p *pairer) pair(ctx context.Context, c *listener.Conn) {
	w := waiter{c, make(chan struct{})}
	select {
	case p.waiting <- w:
		<-w.done
	case other := <-p.waiting:
		defer close(other.done)
		p.relay(ctx, []*listener.Conn{c, other.conn}, nil)
	}
}

// relay copies both ways. Its state is empty: Read and Write alternate, so there is nothing between two Reads.
func (p *pairer) relay(ctx context.Context, pair []*listener.Conn, _ []byte) {
	results := make(chan error, 2)
	for i, from := range pair {
		stop := context.AfterFunc(ctx, from.Interrupt)
		defer stop()
		go func() { results <- copyUntilInterrupted(pair[1-i], from) }()
	}
	first, second := <-results, <-results
	if errors.Is(first, listener.ErrInterrupted) && errors.Is(second, listener.ErrInterrupted) {
		if err := p.gen.Detach(pairKind, nil, pair...); err != nil {
			slog.Error("stays", "error", err.Error())
		}
	}
}

func copyUntilInterrupted(to, from *listener.Conn) error {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if _, err := to.Write(buffer[:n]); err != nil {
			return err
		}
		if err != nil {
			if err == io.EOF {
				_ = to.CloseWrite()
			}
			return err
		}
	}
}
