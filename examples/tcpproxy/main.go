// Command tcpproxy is a whole TCP proxy that replaces itself: SIGHUP upgrades it, with all connections in the middle of what they do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
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
	ln, err := gen.Listen(ctx, "proxy", "tcp", cfg.listen)
	if err != nil {
		return err
	}
	p := newProxy(gen, ln, cfg)
	gen.Conns(ln, p.serve)
	slog.Info("listening", "addr", ln.Addr().String(), "upstream", strings.Join(cfg.upstreams, ","), "generation", gen.Number())
	return gen.Run(ctx)
}

type config struct {
	listen, pidFile   string
	upstreams         []string
	probation, drain  time.Duration
	dialTimeout, idle time.Duration
	maxConns          int
}

// parseFlags ends the process if the flags make no sense.
func parseFlags() (cfg config) {
	flag.StringVar(&cfg.listen, "listen", "127.0.0.1:7000", "take connections on this `host:port`; port 0 takes a free one, see the log")
	flag.Func("upstream", "pass them on to `host:port[,host:port…]`, in turn; where one cannot be dialed, to the next", func(list string) error {
		cfg.upstreams = strings.Split(list, ",")
		for _, address := range cfg.upstreams {
			if err := checkAddress(address); err != nil {
				return err
			}
		}
		return nil
	})
	flag.StringVar(&cfg.pidFile, "pidfile", "", "keep the pid of the generation that serves in this `file`")
	flag.DurationVar(&cfg.probation, "probation", restart.DefaultProbation, "serve this `long` before an upgrade is final; 0 for not at all")
	flag.DurationVar(&cfg.drain, "drain", restart.DefaultDrain, "when the service ends, leave connections this `long` to end by themselves; 0 for not at all")
	flag.DurationVar(&cfg.dialTimeout, "dial-timeout", 5*time.Second, "an upstream may take this `long` to accept")
	flag.DurationVar(&cfg.idle, "idle", time.Hour, "close a connection on which nothing has passed for this `long`; 0 for never")
	flag.IntVar(&cfg.maxConns, "max-conns", 4096, "close what comes when there are this `many` connections")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := cfg.check(flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "tcpproxy: %v; -h explains\n", err)
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

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q: want host:port", address)
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 || host == "" {
		return fmt.Errorf("%q: want a host, and a port from 1 to 65535", address)
	}
	return nil
}

func (cfg config) check(args []string) error {
	switch {
	case len(args) > 0:
		return fmt.Errorf("unexpected argument %q", args[0])
	case len(cfg.upstreams) == 0:
		return errors.New("-upstream says where to, and is missing")
	case cfg.probation < 0 || cfg.drain < 0 || cfg.idle < 0:
		return errors.New("-probation, -drain and -idle must not be negative")
	case cfg.dialTimeout <= 0:
		return fmt.Errorf("-dial-timeout is %v, want more than 0", cfg.dialTimeout)
	case cfg.maxConns < 1:
		return fmt.Errorf("-max-conns is %d, want 1 or more", cfg.maxConns)
	}
	return nil
}

const usage = `Usage: tcpproxy -upstream HOST:PORT[,HOST:PORT…] [flags]

Passes TCP connections on to upstreams, and replaces itself without either side noticing. SIGHUP starts the binary anew as
the next generation, which takes over the listening socket and, once its probation is over, all connections: the client's and
the upstream's, with the bytes that are under way between them. If it fails before that, nothing has happened to them.
SIGTERM and SIGINT end the service when its connections have ended, at the end of -drain at the latest.

Flags:
`
