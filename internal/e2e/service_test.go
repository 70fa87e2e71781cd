//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/restart"
)

// configVariable holds the service's configuration as JSON.
const configVariable = "SEGUE_E2E_CONFIG"

type config struct {
	Dir            string
	Probation      time.Duration
	Drain          time.Duration
	UpgradeTimeout time.Duration
	Unix           bool          // listen on a unix socket as well
	Packet         bool          // and on udp
	Chdir          string        // change directory before anything else
	Address        string        // to listen on; empty: any port of 127.0.0.1
	Cleanup        time.Duration // what is left to do after Run
	OneLine        bool          // nothing but restart.ListenAndServe on Address
	AllowUID       int           // besides its own and root, to take over
	Socket         bool          // can be taken over
	Certificate    string        // file with certificate and key: listen for HTTPS as well
	LargeState     int           // bytes of a state that is carried along

	IdleTimeout       time.Duration // of the http.Server behind Address
	ReadHeaderTimeout time.Duration
	WriteTimeout      time.Duration
	Raw               *rawConfig // echo on a listener of its own as well
	Spread            time.Duration
	Descriptors       uint64 // that a successor may have; 0: as many as its predecessor
}

func (c config) pidFile() string   { return filepath.Join(c.Dir, "pid") }
func (c config) faultFile() string { return filepath.Join(c.Dir, "fault") }
func (c config) takeoverSocket() string {
	return filepath.Join(c.Dir, "takeover.sock")
}
func (c config) unixSocket() string { return filepath.Join(c.Dir, "unix.sock") }

// playService is a service with everything that this issue has, and a fault if a successor finds one in the fault file.
func playService() error {
	var cfg config
	if err := json.Unmarshal([]byte(os.Getenv(configVariable)), &cfg); err != nil {
		return err
	}
	if cfg.OneLine && cfg.Certificate != "" {
		return restart.ListenAndServeTLS(&http.Server{Addr: cfg.Address, Handler: http.HandlerFunc(whoAnswers)}, cfg.Certificate, cfg.Certificate)
	}
	if cfg.OneLine {
		return restart.ListenAndServe(&http.Server{Addr: cfg.Address, Handler: http.HandlerFunc(whoAnswers)})
	}
	if cfg.Chdir != "" {
		if err := os.Chdir(cfg.Chdir); err != nil {
			return err
		}
	}
	// A predecessor's fault must be known before New: only a successor has this variable.
	isSuccessor := os.Getenv("TABLEFLIP_HAS_PARENT_7DIU3") != ""
	fault := ""
	if content, err := os.ReadFile(cfg.faultFile()); err == nil && isSuccessor {
		fault = strings.TrimSpace(string(content))
	}
	if fault == "hang before HELLO" {
		select {}
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("pid", os.Getpid())
	slog.SetDefault(log)
	var saboteur *saboteur
	if isSuccessor {
		if n := cfg.Descriptors; n > 0 {
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
				return err
			}
		}
		var err error
		if saboteur, err = infiltrate(cfg); err != nil {
			return err
		}
	}
	var healthChecks atomic.Int64
	socket, allowed := "", []int(nil)
	if cfg.AllowUID != 0 {
		allowed = []int{cfg.AllowUID}
	}
	if cfg.Socket {
		socket = cfg.takeoverSocket()
	}
	gen, err := restart.New(restart.Options{
		Socket:         socket,
		AllowUIDs:      allowed,
		Logger:         log,
		Observer:       loggingObserver(log),
		PIDFile:        cfg.pidFile(),
		Probation:      cfg.Probation,
		Drain:          cfg.Drain,
		Spread:         cfg.Spread,
		UpgradeTimeout: cfg.UpgradeTimeout,
		Preflight: func(context.Context) error {
			if _, err := os.Stat(filepath.Join(cfg.Dir, "no-preflight")); err == nil {
				return errors.New("the test says no")
			}
			return nil
		},
		Healthy: func(ctx context.Context) error {
			if healthChecks.Add(1) > 1 && fault == "unhealthy" {
				return errors.New("the test says so")
			}
			if fault == "crash on probation" {
				panic("the test says so")
			}
			if fault == "exit on probation" {
				os.Exit(0)
			}
			if fault == "stop on probation" {
				stopSelf()
			}
			return saboteur.healthy(ctx)
		},
	})
	if err != nil {
		return err
	}
	switch fault {
	case "exit before ready":
		os.Exit(3)
	case "hang before ready":
		select {}
	case "stop before ready":
		stopSelf()
	}
	ctx := context.Background()
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1:0"
	}
	ln, err := gen.Listen(ctx, "web", "tcp", cfg.Address)
	if err != nil {
		return err
	}
	mux := serviceHandler(gen)
	if err := errors.Join(countRequests(gen, mux), carryLargeState(gen, cfg.LargeState, log)); err != nil {
		return err
	}
	handler := saboteur.handler(mux)
	gen.HTTP(ln, &http.Server{
		Handler:           handler,
		IdleTimeout:       cfg.IdleTimeout,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout,
		WriteTimeout:      cfg.WriteTimeout,
	})
	if cfg.Unix {
		ln, err := gen.Listen(ctx, "unix", "unix", cfg.unixSocket())
		if err != nil {
			return err
		}
		gen.HTTP(ln, &http.Server{Handler: handler})
	}
	if cfg.Packet {
		conn, err := gen.ListenPacket(ctx, "udp", "udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		gen.Add(func() error { return echoPackets(gen, conn) }, func(error) {})
		log.Info("packets", "address", conn.LocalAddr().String())
	}
	if cfg.Certificate != "" {
		certificate, err := tls.LoadX509KeyPair(cfg.Certificate, cfg.Certificate)
		if err != nil {
			return err
		}
		secure, err := gen.Listen(ctx, "secure", "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		gen.HTTP(secure, &http.Server{Handler: handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}})
		log.Info("secure", "address", secure.Addr().String())
	}
	if cfg.Raw != nil {
		if err := serveRaw(ctx, gen, mux, *cfg.Raw, fault); err != nil {
			return err
		}
	}
	journal, err := gen.File("journal", func() (*os.File, error) { return os.Create(filepath.Join(cfg.Dir, "journal")) })
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(journal, "generation %d\n", gen.Number()); err != nil {
		return err
	}
	visits := 0
	if err := gen.State("visits", restart.Codec{
		Encode: func() ([]byte, error) { return json.Marshal(visits + 1) },
		Decode: func(value []byte) error { return json.Unmarshal(value, &visits) },
	}); err != nil {
		return err
	}
	log.Info("started", "generation", gen.Number(), "address", ln.Addr().String(), "visits", visits)
	defer func() {
		if cfg.Cleanup > 0 {
			<-time.After(cfg.Cleanup)
		}
	}()
	return gen.Run(ctx)
}

// stopSelf does not return before SIGCONT. A signal to the process might stop it only after this thread has gone on; one
// to the thread is acted on before the system call returns.
func stopSelf() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
}

func whoAnswers(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "pid %d\n", os.Getpid()) }

func echoPackets(gen *restart.Generation, conn net.PacketConn) error {
	buffer := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			<-gen.Leaving()
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(fmt.Appendf(nil, "%d %s", gen.Number(), buffer[:n]), from); err != nil {
			return err
		}
	}
}

// serviceHandler answers what the harness asks.
func serviceHandler(gen *restart.Generation) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "generation %d pid %d", gen.Number(), os.Getpid())
		if n := r.URL.Query().Get("n"); n != "" {
			fmt.Fprintf(w, " request %s", n)
		}
		fmt.Fprintln(w)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.URL.Query().Get("d"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
		fmt.Fprintf(w, "generation %d pid %d\n", gen.Number(), os.Getpid())
	})
	mux.HandleFunc("/goroutines", func(w http.ResponseWriter, r *http.Request) {
		runtime.GC()
		fmt.Fprintln(w, runtime.NumGoroutine())
	})
	// /upgrade upgrades, and answers with the sentinels that the error is.
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		report, err := gen.Upgrade(context.WithoutCancel(r.Context()))
		answer := upgradeAnswer{Took: time.Since(started), Report: encodable(report)}
		if err != nil {
			answer.Error = err.Error()
			for name, sentinel := range sentinels {
				if errors.Is(err, sentinel) {
					answer.Is = append(answer.Is, name)
				}
			}
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
	// /child starts a process of the service's own and answers with its environment and descriptors.
	mux.HandleFunc("/child", func(w http.ResponseWriter, r *http.Request) {
		out, err := exec.CommandContext(r.Context(), "/bin/sh", "-c", "env; ls -l /proc/self/fd").CombinedOutput()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(out)
	})
	return mux
}

type upgradeAnswer struct {
	Error  string
	Is     []string
	Took   time.Duration
	Report restart.Report
}

var sentinels = map[string]error{
	"ErrPreflight": restart.ErrPreflight, "ErrSpawn": restart.ErrSpawn, "ErrSuccessorExited": restart.ErrSuccessorExited,
	"ErrUpgradeTimeout": restart.ErrUpgradeTimeout, "ErrPingTimeout": restart.ErrPingTimeout,
	"ErrUnhealthy": restart.ErrUnhealthy, "ErrRolledBack": restart.ErrRolledBack,
	"ErrStateTooLarge": restart.ErrStateTooLarge,
	"ErrTooLarge":      handoff.ErrTooLarge, "ErrMalformed": handoff.ErrMalformed, "ErrTokenMismatch": handoff.ErrTokenMismatch,
	"ErrUnexpectedMessage": handoff.ErrUnexpectedMessage, "EOF": io.EOF, "ErrAck": handoff.ErrAck,
	"ErrNotExist": os.ErrNotExist, "ErrPermission": os.ErrPermission,
}
