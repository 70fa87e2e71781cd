//go:build linux

package broker

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// secret is the token of the bare form's tests.
const secret = "16 secret bytes!"

// python runs a program in that language until the end of the test, once it has said something: what it returns.
func python(t *testing.T, program string, arguments ...string) (says string) {
	t.Helper()
	interpreter, err := exec.LookPath("python3")
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("the other language is Python, and python3 is not installed: ", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience) // t.Context ends before Cleanup
	cmd := exec.CommandContext(ctx, interpreter, append([]string{"-c", program}, arguments...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer cancel()
		if err := cmd.Wait(); err != nil {
			t.Errorf("python: %v: %s", err, &stderr)
		}
	})
	says, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("python: %q, %v", says, err)
	}
	return strings.TrimSpace(says)
}

// A backend in Python: it takes the token and the descriptor with socket.recv_fds, and serves.
const pythonBackend = `
import socket, sys
handoffs = socket.socket(socket.AF_UNIX)
handoffs.bind(sys.argv[1])
handoffs.listen(16)
print("ready", flush=True)
for i in range(int(sys.argv[3])):
    conn, _ = handoffs.accept()
    token, fds, flags, _ = socket.recv_fds(conn, 4096, 16)
    assert token == bytes.fromhex(sys.argv[2]) and len(fds) == 1 and not flags & socket.MSG_CTRUNC, (token, fds, flags)
    assert conn.recv(1) == b""  # and nothing else
    conn.close()
    client = socket.socket(fileno=fds[0])
    client.setblocking(True)
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        request += client.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\npython\n")
    client.close()
`

func TestFrontHandsOverToPython(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "handoff")
	token := hex.EncodeToString([]byte(secret))
	python(t, pythonBackend, socket, token, "20")
	front := start(t, "front", "-listen", "127.0.0.1:0", "-backend", socket, "-bare", "-token", token)
	for range 20 {
		if have, err := get(front.addr); err != nil || have != "python\n" {
			t.Fatalf("want python, have %q, %v", have, err)
		}
	}
	if done := front.stop(); done.handedOver != 20 {
		t.Errorf("want 20 handed over, have %+v", done)
	}
}

// A front in Python: it accepts clients, and sends the token and the descriptor with socket.send_fds.
const pythonFront = `
import socket, sys
clients = socket.create_server(("127.0.0.1", 0))
print("%s:%d" % clients.getsockname(), flush=True)
for i in range(int(sys.argv[3])):
    client, _ = clients.accept()
    conn = socket.socket(socket.AF_UNIX)
    conn.connect(sys.argv[1])
    assert socket.send_fds(conn, [bytes.fromhex(sys.argv[2])], [client.fileno()]) == 16
    conn.close()
    client.close()
`

func TestBackendTakesFromPython(t *testing.T) {
	token := hex.EncodeToString([]byte(secret))
	backend, socket := startBackend(t, "-bare", "-token", token)
	address := python(t, pythonFront, socket, token, "20")
	for range 20 {
		if have, err := get(address); err != nil || !strings.HasSuffix(have, by(backend)) {
			t.Fatalf("want an answer of the backend, have %q, %v", have, err)
		}
	}
}
