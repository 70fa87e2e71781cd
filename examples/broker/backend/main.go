// Command backend serves HTTP on connections that a front hands over. SIGHUP upgrades it, SIGTERM drains it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/segue-go/segue/handoff"
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
	web, err := gen.Listen(ctx, "web", "tcp", cfg.listen)
	if err != nil {
		return err
	}
	socket, err := gen.Listen(ctx, "handoff", "unix", cfg.socket)
	if err != nil {
		return err
	}
	gen.HTTP(web, &http.Server{Handler: routes(gen.Number()), ReadHeaderTimeout: 10 * time.Second})
	gen.Handoffs(socket, web, &handoff.Backend{Service: cfg.service, Bare: cfg.verify})
	slog.Info("listening", "addr", web.Addr().String(), "socket", cfg.socket, "generation", gen.Number())
	return gen.Run(ctx)
}

// maxEcho is the largest body in bytes that is sent back.
const maxEcho = 1 << 20

func routes(generation int) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "generation %d pid %d\n", generation, os.Getpid())
	})
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		// Whole, because HTTP/1 reads no more of a request once its answer has begun.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEcho))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(body)
	})
	return mux
}

type config struct {
	socket, listen, service, pidFile string
	probation, drain                 time.Duration
	verify                           func(presented []byte) error // nil for the framed form
}

// parseFlags ends the process if the flags make no sense.
func parseFlags() (cfg config) {
	var token string
	var bare bool
	flag.StringVar(&cfg.socket, "socket", "", "fronts hand connections over at this `path`, a Unix socket")
	flag.StringVar(&cfg.listen, "listen", "127.0.0.1:0", "serve clients that come by themselves, or through a front that reconnects, on this `host:port`")
	flag.StringVar(&cfg.service, "service", "", "take only connections that are for this `service`")
	flag.StringVar(&cfg.pidFile, "pidfile", "", "keep the pid of the generation that serves in this `file`")
	flag.DurationVar(&cfg.probation, "probation", restart.DefaultProbation, "serve this `long` before an upgrade is final; 0 for not at all")
	flag.DurationVar(&cfg.drain, "drain", restart.DefaultDrain, "leave connections this `long` to end by themselves; 0 for not at all")
	flag.BoolVar(&bare, "bare", false, "take 16 token bytes and a descriptor from any process of this user, and nothing else")
	flag.StringVar(&token, "token", "", "with -bare: the token, 32 `hex` digits")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := cfg.check(flag.Args(), bare, token); err != nil {
		fmt.Fprintf(os.Stderr, "backend: %v; -h explains\n", err)
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

func (cfg *config) check(args []string, bare bool, token string) error {
	switch {
	case len(args) > 0:
		return fmt.Errorf("unexpected argument %q", args[0])
	case cfg.socket == "":
		return errors.New("-socket is missing")
	case bare != (token != ""):
		return errors.New("-bare and -token go together")
	case cfg.probation < 0 || cfg.drain < 0:
		return errors.New("-probation and -drain must not be negative")
	}
	if !bare {
		return nil
	}
	expected, err := handoff.ParseTokenText(token)
	if err != nil {
		return fmt.Errorf("-token: %w", err)
	}
	cfg.verify = expected.Verify
	return nil
}

const usage = `Usage: backend -socket FILE [flags]

An HTTP server that gets its connections from a front (see ../front), which accepts them. SIGHUP starts the binary anew as the
next generation: connections move to it, and fronts go on with it. SIGTERM and SIGINT end the service.

  /              which generation answers, and its pid
  /echo          sends a POST's body back, 1 MiB at most

Flags:
`
