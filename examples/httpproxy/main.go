// Command httpproxy is a whole HTTP reverse proxy that replaces itself: SIGHUP upgrades it, and re-reads its configuration.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
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
	in, err := readRoutes(cfg.file, cfg.upstream)
	if err != nil {
		return err
	}
	var p *proxy
	var next atomic.Pointer[routes] // those of the successor
	gen, err := restart.New(restart.Options{
		PIDFile:   cfg.pidFile,
		Probation: cfg.probation,
		Drain:     cfg.drain,
		Preflight: func(context.Context) error {
			checked, err := readRoutes(cfg.file, cfg.upstream)
			next.Store(checked)
			return err
		},
		Observer: restart.Observer{
			// What still begins here from now on, behind another request on the same connection, is not to be answered otherwise than in
			// the successor.
			SuccessorReady: func(*restart.Report) { p.routes.Store(next.Load()) },
			UpgradeFailed:  func(*restart.Report) { p.routes.Store(in) },
		},
	})
	if err != nil {
		return err
	}
	p = newProxy(gen, in)
	ln, err := gen.Listen(ctx, "web", "tcp", cfg.listen)
	if err != nil {
		return err
	}
	gen.HTTP(ln, &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute})
	slog.Info("listening", "addr", ln.Addr().String(), "routes", len(in.list), "generation", gen.Number())
	return gen.Run(ctx)
}

type config struct {
	listen, pidFile, file string
	upstream              *url.URL
	probation, drain      time.Duration
}

// parseFlags ends the process if the flags make no sense.
func parseFlags() (cfg config) {
	flag.StringVar(&cfg.listen, "listen", "127.0.0.1:8000", "serve on this `host:port`; port 0 takes a free one, see the log")
	flag.Func("upstream", "pass requests on to this http:// `URL`, unless -config has a route for them", func(text string) (err error) {
		cfg.upstream, err = parseUpstream(text)
		return err
	})
	flag.StringVar(&cfg.file, "config", "", "read routes from this `file`, anew with each SIGHUP; see above")
	flag.StringVar(&cfg.pidFile, "pidfile", "", "keep the pid of the generation that serves in this `file`")
	flag.DurationVar(&cfg.probation, "probation", restart.DefaultProbation, "serve this `long` before an upgrade is final; 0 for not at all")
	flag.DurationVar(&cfg.drain, "drain", restart.DefaultDrain, "leave connections this `long` to end by themselves; 0 for not at all")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := cfg.check(flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "httpproxy: %v; -h explains\n", err)
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
	case cfg.upstream == nil && cfg.file == "":
		return errors.New("-upstream or -config says where to, and both are missing")
	case cfg.probation < 0 || cfg.drain < 0:
		return errors.New("-probation and -drain must not be negative")
	}
	return nil
}

const usage = `Usage: httpproxy -upstream URL [flags]
       httpproxy -config FILE [flags]

An HTTP reverse proxy that replaces itself without its clients noticing. SIGHUP starts the binary anew as the next generation, which reads
the configuration, takes over the listening socket, and then the clients' connections, each between two requests; WebSockets, and
whatever else a client has upgraded to, with their upstream's. A configuration that cannot be used is logged, with the line, and nothing
else happens. SIGTERM and SIGINT end the service.

The configuration has lines like these; the longest prefix of a path wins, and several upstreams take turns:

  route /     http://127.0.0.1:9000
  route /api  http://127.0.0.1:9001,http://127.0.0.1:9002   # what follows # is a comment

Flags:
`
