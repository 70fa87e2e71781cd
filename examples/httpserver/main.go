// Command httpserver is a whole HTTP service that replaces itself: SIGHUP upgrades it, SIGTERM drains it.
package main

import (
	"context"
	"crypto/tls"
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
	var fault fault // see fault.go; a real service has none
	gen, err := restart.New(restart.Options{
		PIDFile:   cfg.pidFile,
		Socket:    cfg.socket,
		Probation: cfg.probation,
		Drain:     cfg.drain,
		Healthy:   fault.healthy,
	})
	if err != nil {
		return err
	}
	if gen.Number() > 1 {
		if err := fault.begin(cfg.fault); err != nil {
			return err
		}
	}
	ln, err := gen.Listen(ctx, "web", "tcp", cfg.addr)
	if err != nil {
		return err
	}
	mux := routes(gen.Number(), os.Getpid())
	handleWebSockets(gen, mux)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	if cfg.tlsCert != "" {
		cert, err := tls.LoadX509KeyPair(cfg.tlsCert, cfg.tlsKey)
		if err != nil {
			return err
		}
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	gen.HTTP(ln, srv)
	slog.Info("listening", "addr", ln.Addr().String(), "generation", gen.Number())
	return gen.Run(ctx)
}

type config struct {
	addr, pidFile, socket  string
	tlsCert, tlsKey, fault string
	probation, drain       time.Duration
}

// parseFlags ends the process if the flags make no sense.
func parseFlags() (cfg config) {
	flag.StringVar(&cfg.addr, "addr", "127.0.0.1:8080", "serve on this `host:port`; port 0 takes a free one, see the log")
	flag.StringVar(&cfg.pidFile, "pidfile", "", "keep the pid of the generation that serves in this `file`")
	flag.StringVar(&cfg.socket, "socket", "", "let a second start with the same flags take over through this `path`, a Unix socket")
	flag.DurationVar(&cfg.probation, "probation", restart.DefaultProbation, "serve this `long` before an upgrade is final; 0 for not at all")
	flag.DurationVar(&cfg.drain, "drain", restart.DefaultDrain, "leave connections this `long` to end by themselves; 0 for not at all")
	flag.StringVar(&cfg.tlsCert, "tls-cert", "", "serve HTTPS with the certificate in this PEM `file`")
	flag.StringVar(&cfg.tlsKey, "tls-key", "", "the certificate's private key is in this PEM `file`")
	flag.StringVar(&cfg.fault, "fault", "", "for tests: each successor reads this `file` at its start, if it exists, and misbehaves as its one line says:\n"+faultUsage)
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := cfg.check(flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "httpserver: %v; -h explains\n", err)
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
	case (cfg.tlsCert == "") != (cfg.tlsKey == ""):
		return errors.New("-tls-cert and -tls-key go together")
	case cfg.probation < 0 || cfg.drain < 0:
		return errors.New("-probation and -drain must not be negative")
	}
	return nil
}

const usage = `Usage: httpserver [flags]

An HTTP server that replaces itself without its clients noticing. SIGHUP starts the binary anew as the next generation,
which takes the listening socket over, while this one finishes its requests. With -socket, a second start with the same
flags does the same. SIGTERM and SIGINT end the service.

  /              which generation answers, and its pid
  /slow?d=2s     answers after that time
  /stream?d=5s   sends a line each 100 ms for that time
  /echo          sends a POST's body back as it comes
  /ws            a WebSocket that echoes, and stays open through upgrades; not over TLS

Flags:
`
