//go:build linux

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segue-go/segue/restart"
)

const (
	hello    = "/hello"
	file     = "/file"
	fileSize = 1 << 20

	fileVariable     = "SEGUE_BENCH_FILE"     // what /file serves
	timeoutsVariable = "SEGUE_BENCH_TIMEOUTS" // not empty: with net/http's usual timeouts
	profileVariable  = "SEGUE_BENCH_PROFILE"  // where to write CPU profiles, to NAME.net and NAME.segue; set by who wants them
)

// figures is what a server knows of itself.
type figures struct {
	CPU     time.Duration // user and system
	Mallocs uint64
	Heap    uint64 // bytes of objects that are reachable
	Stacks  uint64 // bytes
}

// playServer is the process that is measured. It says where it listens, then answers each line of its standard input with its
// figures: "count" as they are; "live" after a garbage collection; "hold" also switches the collector off.
func playServer(serve func(*http.Server, func(net.Addr)) error) error {
	srv := &http.Server{Handler: handler(os.Getenv(fileVariable))}
	if os.Getenv(timeoutsVariable) != "" {
		srv.ReadHeaderTimeout, srv.WriteTimeout, srv.IdleTimeout = 10*time.Second, 30*time.Second, time.Minute
	}
	if name := os.Getenv(profileVariable); name != "" {
		profile, err := os.Create(name + "." + os.Getenv(roleVariable))
		if err != nil {
			return err
		}
		defer profile.Close()
		if err := pprof.StartCPUProfile(profile); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	address := make(chan net.Addr, 1)
	failed := make(chan error, 1)
	go func() { failed <- serve(srv, func(a net.Addr) { address <- a }) }()
	select {
	case a := <-address:
		fmt.Println(a)
	case err := <-failed:
		return err
	}
	answers := json.NewEncoder(os.Stdout)
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		if commands.Text() != "count" {
			runtime.GC()
			runtime.GC() // what a sync.Pool held is gone with the second
		}
		if commands.Text() == "hold" {
			debug.SetGCPercent(-1)
		}
		if err := answers.Encode(measure()); err != nil {
			return err
		}
	}
	return nil
}

func handler(path string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(hello, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello, world\n")
	})
	modified := time.Now()
	mux.HandleFunc(file, func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer f.Close()
		http.ServeContent(w, r, "file.bin", modified, f)
	})
	return mux
}

func measure() figures {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage) // cannot fail with these arguments
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return figures{
		CPU:     time.Duration(usage.Utime.Nano() + usage.Stime.Nano()),
		Mallocs: memory.Mallocs,
		Heap:    memory.HeapAlloc,
		Stacks:  memory.StackInuse,
	}
}

func servePlain(srv *http.Server, at func(net.Addr)) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	at(ln.Addr())
	return srv.Serve(ln)
}

func serveSegue(srv *http.Server, at func(net.Addr)) error {
	gen, err := restart.New(restart.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ln, err := gen.Listen(context.Background(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	gen.HTTP(ln, srv)
	at(ln.Addr())
	return gen.Run(context.Background())
}

// server is the benchmark's side of a server process.
type server struct {
	address string
	ask     func(command string) figures
	stop    func()
}

// startServer starts a server that lives until stop, or the end of the test. With tracer, a command line, it is a child of that.
func startServer(t testing.TB, role string, environment []string, tracer ...string) *server {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := append(tracer, binary)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(append(os.Environ(), environment...), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		_ = in.Close() // it ends when it reads EOF
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s server: %v", role, err)
		}
	})
	t.Cleanup(stop)
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("%s server: no address: %v", role, lines.Err())
	}
	return &server{
		address: lines.Text(),
		ask: func(command string) (f figures) {
			t.Helper()
			if _, err := fmt.Fprintln(in, command); err != nil {
				t.Fatal(err)
			}
			if !lines.Scan() {
				t.Fatalf("%s server: no answer: %v", role, lines.Err())
			}
			if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
				t.Fatal(err)
			}
			return f
		},
		stop: stop,
	}
}

// newFile makes the file that servers serve, and the environment that says so.
func newFile(t testing.TB) (environment string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.bin")
	content := make([]byte, fileSize)
	for i := range content {
		content[i] = byte(i)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return fileVariable + "=" + path
}
