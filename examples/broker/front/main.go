// Command front accepts client connections and hands each to a backend, which serves it from then on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/listener"
)

func main() {
	cfg := parseFlags()
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)).With("pid", os.Getpid()))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, cfg); err != nil {
		slog.Error("failed", "error", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, cfg config) error {
	var sockets listener.Set
	defer sockets.Close()
	ln, err := sockets.Listen(ctx, "front", "tcp", cfg.listen)
	if err != nil {
		return err
	}
	f := newFront(cfg)
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	slog.Info("listening", "addr", ln.Addr().String(), "backends", len(f.backends))
	err = f.serve(ln)
	draining, cancel := context.WithTimeout(context.Background(), cfg.drain)
	defer cancel()
	_ = ln.WaitConns(draining)
	cut := ln.CloseConns()
	f.close()
	slog.Info("done", "accepted", f.accepted.Load(), "handed_over", f.handedOver.Load(), "reconnected", f.reconnected.Load(),
		"lost", f.lost.Load(), "cut", cut, "fallbacks", f.reasons())
	if ctx.Err() != nil {
		return nil
	}
	return err
}

type config struct {
	listen, service string
	backends        list
	reconnect       list
	token           handoff.Token // zero for the framed form
	relay           bool
	deadline        time.Duration
	patience, drain time.Duration
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	if value == "" {
		return errors.New("empty")
	}
	*l = append(*l, value)
	return nil
}

// parseFlags ends the process if the flags make no sense.
func parseFlags() (cfg config) {
	var token string
	var bare bool
	flag.StringVar(&cfg.listen, "listen", "127.0.0.1:8080", "accept clients on this `host:port`; port 0 takes a free one, see the log")
	flag.Var(&cfg.backends, "backend", "hand connections over at this `path`, a Unix socket; several are taken in turn")
	flag.Var(&cfg.reconnect, "reconnect", "clients whose connection no backend takes are served through this `host:port`; several are tried in turn")
	flag.StringVar(&cfg.service, "service", "", "offer connections as ones for this `service`")
	flag.BoolVar(&cfg.relay, "relay", false, "tell clients who serves them: all of them must wait for it (handoff.Dialer)")
	flag.DurationVar(&cfg.deadline, "deadline", handoff.DefaultAckDeadline, "give a backend this `long` to answer")
	flag.DurationVar(&cfg.patience, "patience", 5*time.Second, "try for this `long` to reach one of -reconnect")
	flag.DurationVar(&cfg.drain, "drain", 30*time.Second, "leave connections this `long` to end by themselves")
	flag.BoolVar(&bare, "bare", false, "send 16 token bytes and a descriptor for each connection, and nothing else")
	flag.StringVar(&token, "token", "", "with -bare: the token, 32 `hex` digits")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := cfg.check(flag.Args(), bare, token); err != nil {
		fmt.Fprintf(os.Stderr, "front: %v; -h explains\n", err)
		os.Exit(2)
	}
	return cfg
}

func (cfg *config) check(args []string, bare bool, token string) error {
	switch {
	case len(args) > 0:
		return fmt.Errorf("unexpected argument %q", args[0])
	case len(cfg.backends) == 0 && len(cfg.reconnect) == 0:
		return errors.New("neither -backend nor -reconnect: nobody serves")
	case bare != (token != ""):
		return errors.New("-bare and -token go together")
	case bare && cfg.relay:
		return errors.New("-relay needs the framed form")
	case cfg.deadline <= 0 || cfg.patience < 0 || cfg.drain < 0:
		return errors.New("-deadline must be positive, -patience and -drain must not be negative")
	}
	if !bare {
		return nil
	}
	var err error
	if cfg.token, err = handoff.ParseTokenText(token); err != nil {
		return fmt.Errorf("-token: %w", err)
	}
	return nil
}

const usage = `Usage: front -backend FILE [-backend FILE]... [-reconnect HOST:PORT]... [flags]

Accepts connections, reads nothing from them, and hands each to a backend (see ../backend), in turn. When none takes it, the
front passes its bytes on to one of -reconnect, so that the client does not notice. SIGTERM and SIGINT end it.

Flags:
`
