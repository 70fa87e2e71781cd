//go:build linux

package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/segue-go/segue/listener"
)

// Invariant 9: sendfile, splice and writev stay. strace counts, because nothing that a process can see of itself tells how
// bytes got into a socket.

// copying is a way to move bytes to a connection that was accepted.
type copying struct {
	name    string
	network string
	do      func(conn *listener.Conn, source io.Reader) (int64, error)
	source  string // "file", "tcp", or "" for none
	call    string // by which
	through int64  // how often each byte passes it: splice goes into a pipe and out again
}

const chunks = 64 // of a net.Buffers

var copyings = []copying{
	{"io.Copy of a file to tcp", "tcp", copyAll, "file", "sendfile", 1},
	{"io.CopyN of a file to tcp", "tcp", copyN, "file", "sendfile", 1},
	{"io.Copy of a file to unix", "unix", copyAll, "file", "sendfile", 1},
	{"io.Copy of tcp to tcp", "tcp", copyAll, "tcp", "splice", 2},
	{"io.CopyN of tcp to tcp", "tcp", copyN, "tcp", "splice", 2},
	{"io.Copy of tcp to unix", "unix", copyAll, "tcp", "splice", 2},
	{"net.Buffers to tcp", "tcp", writeBuffers, "", "writev", 1},
	{"net.Buffers to unix", "unix", writeBuffers, "", "writev", 1},
	{"ReadFrom net.Buffers to tcp", "tcp", readFromBuffers, "", "writev", 1},
}

func copyAll(conn *listener.Conn, source io.Reader) (int64, error) { return io.Copy(conn, source) }
func copyN(conn *listener.Conn, source io.Reader) (int64, error) {
	return io.CopyN(conn, source, fileSize)
}
func writeBuffers(conn *listener.Conn, _ io.Reader) (int64, error) { return buffers().WriteTo(conn) }
func readFromBuffers(conn *listener.Conn, _ io.Reader) (int64, error) {
	return conn.ReadFrom(buffers())
}

func buffers() *net.Buffers {
	var list net.Buffers
	for range chunks {
		list = append(list, make([]byte, fileSize/chunks))
	}
	return &list
}

// mark leaves a line in the trace: a write to no descriptor.
func mark(name string) { _, _ = syscall.Write(-1, []byte(name)) }

// playCopying is the process that is traced. It goes through copyings.
func playCopying() error {
	directory, err := os.MkdirTemp("", "segue-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	var sockets listener.Set
	defer sockets.Close()
	for i, c := range copyings {
		path := filepath.Join(directory, strconv.Itoa(i))
		conn, client, err := accept(&sockets, c.network, path)
		if err != nil {
			return err
		}
		drained := make(chan error, 1)
		go func() {
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{client}, make([]byte, 64<<10))
			drained <- err
		}()
		source, err := open(&sockets, c.source, path)
		if err != nil {
			return err
		}
		mark(c.name)
		n, err := c.do(conn, source)
		mark("end")
		if err != nil || n != fileSize {
			return fmt.Errorf("%s: %d bytes, %v", c.name, n, err)
		}
		_ = conn.Close()
		if err := <-drained; err != nil {
			return err
		}
	}
	return nil
}

// accept returns both ends of a connection.
func accept(sockets *listener.Set, network, path string) (conn *listener.Conn, client net.Conn, err error) {
	address := path
	if network == "tcp" {
		address = "127.0.0.1:0"
	}
	ln, err := sockets.Listen(context.Background(), path+network, network, address)
	if err != nil {
		return nil, nil, err
	}
	if client, err = net.Dial(network, ln.Addr().String()); err != nil {
		return nil, nil, err
	}
	conn, err = ln.AcceptConn()
	return conn, client, err
}

// open returns a source of fileSize bytes.
func open(sockets *listener.Set, kind, path string) (io.Reader, error) {
	content := make([]byte, fileSize)
	switch kind {
	case "file":
		if err := os.WriteFile(path+".file", content, 0o600); err != nil {
			return nil, err
		}
		return os.Open(path + ".file")
	case "tcp":
		conn, client, err := accept(sockets, "tcp", path+".source")
		if err != nil {
			return nil, err
		}
		go func() {
			_, _ = client.Write(content)
			_ = client.Close()
		}()
		return conn, nil
	}
	return nil, nil
}

func TestInvariant9SystemCalls(t *testing.T) {
	tracer, trace := strace(t)
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tracer[0], append(tracer[1:], binary)...)
	cmd.Env = append(os.Environ(), roleVariable+"=copying")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sections := readTrace(t, trace)
	for _, c := range copyings {
		moved, ok := sections[c.name]
		if !ok {
			t.Errorf("%s: not in the trace", c.name)
		} else if have, want := moved[c.call], fileSize*c.through; have != want {
			t.Errorf("%s: %d bytes by %s, want %d (by call: %v)", c.name, have, c.call, want, moved)
		}
	}
}

// A file that net/http serves on a Segue listener is sent by sendfile.
func TestInvariant9ServesFilesBySendfile(t *testing.T) {
	const requests = 5
	const sniffed = 512 // bytes of each file, which net/http reads to guess the content type, and writes
	for _, role := range []string{"net", "segue"} {
		t.Run(role, func(t *testing.T) {
			tracer, trace := strace(t)
			s := startServer(t, role, []string{newFile(t)}, tracer...)
			repeat(t, dialAll(t, s.address, file, 1), requests)
			s.stop()
			if have := readTrace(t, trace)[""]["sendfile"]; have != requests*(fileSize-sniffed) {
				t.Errorf("%d bytes by sendfile, want %d", have, requests*(fileSize-sniffed))
			}
		})
	}
}

// strace returns a command line that runs another one, and the file that it writes.
func strace(t *testing.T) (command []string, trace string) {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("system calls are counted by strace, which is not installed: ", err)
	}
	if err := exec.Command(path, "-qq", "-o", os.DevNull, "true").Run(); err != nil {
		t.Skip("system calls are counted by strace, which may not trace here: ", err)
	}
	trace = filepath.Join(t.TempDir(), "trace")
	return []string{path, "-f", "-qq", "-e", "trace=sendfile,splice,writev,write", "-e", "signal=none", "-s", "100", "-o", trace}, trace
}

// returned is the end of a call: "123 splice(… ) = 5", or "123 <... splice resumed>… ) = 5" if another thread's came between.
var returned = regexp.MustCompile(`^\d+ +(?:<\.\.\. (\w+) resumed>|(\w+)\().* = (-?\d+)`)

// readTrace returns how many bytes went by which call, in each section that mark began.
func readTrace(t *testing.T, path string) map[string]map[string]int64 {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	section := ""
	sections := map[string]map[string]int64{section: {}}
	for line := range strings.Lines(string(bytes.ToValidUTF8(text, nil))) {
		if _, after, ok := strings.Cut(line, `write(-1, "`); ok {
			section, _, _ = strings.Cut(after, `"`)
			sections[section] = map[string]int64{}
			continue
		}
		if match := returned.FindStringSubmatch(line); match != nil {
			if n, _ := strconv.ParseInt(match[3], 10, 64); n > 0 {
				sections[section][match[1]+match[2]] += n
			}
		}
	}
	return sections
}
