// Command websocket is a chat whose WebSockets stay open when the server is replaced: SIGHUP upgrades it, SIGTERM drains it. See the
// README beside it for how no message is lost, doubled or reordered on the way.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/segue-go/segue/restart"
)

func main() {
	cfg := parseFlags()
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)).With("pid", os.Getpid()))
	if err := serve(context.Background(), cfg); err != nil {
		slog.Error("failed", "error", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, cfg config) error {
	gen, err := restart.New(restart.Options{PIDFile: cfg.pidFile, Probation: cfg.probation, Drain: cfg.drain})
	if err != nil {
		return err
	}
	ln, err := gen.Listen(ctx, "chat", "tcp", cfg.listen)
	if err != nil {
		return err
	}
	rooms := newRooms(gen)
	// So that a successor knows which rooms are still to come.
	if err := gen.State("rooms", restart.Codec{Encode: rooms.encodeNames, Decode: rooms.decodeNames}); err != nil {
		return err
	}
	gen.AdoptAll(roomKind, rooms.adopt)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /chat", rooms.chat)
	gen.HTTP(ln, &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second})
	context.AfterFunc(gen.Context(), rooms.handOn)
	slog.Info("listening", "addr", ln.Addr().String(), "generation", gen.Number())
	return gen.Run(ctx)
}

type config struct {
	listen, pidFile  string
	probation, drain time.Duration
}

// parseFlags ends the process if the flags make no sense.
func parseFlags() (cfg config) {
	flag.StringVar(&cfg.listen, "listen", "127.0.0.1:8080", "serve on this `host:port`; port 0 takes a free one, see the log")
	flag.StringVar(&cfg.pidFile, "pidfile", "", "keep the pid of the generation that serves in this `file`")
	flag.DurationVar(&cfg.probation, "probation", restart.DefaultProbation, "serve this `long` before an upgrade is final; 0 for not at all")
	flag.DurationVar(&cfg.drain, "drain", restart.DefaultDrain, "leave connections this `long` to end by themselves; 0 for not at all")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := cfg.check(flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "websocket: %v; -h explains\n", err)
		os.Exit(2)
	}
	// For restart.Options, 0 is what was left out, and less is none.
	if cfg.probation == 0 {
		cfg.probation = -1
	}
	if cfg.drain == 0 {
		cfg.drain = -1
	}
	return cfg
}

func (cfg config) check(args []string) error {
	switch {
	case len(args) > 0:
		return fmt.Errorf("unexpected argument %q", args[0])
	case cfg.probation < 0 || cfg.drain < 0:
		return errors.New("-probation and -drain must not be negative")
	}
	return nil
}

const usage = `Usage: websocket [flags]

A chat server that replaces itself without its members noticing. SIGHUP starts the binary anew as the next generation, to
which all rooms move with their WebSockets. SIGTERM and SIGINT end the service.

  /chat?room=R&name=N   a WebSocket: each text message goes to all members of the room, as "N: text"

Flags:
`
