//go:build linux || darwin || freebsd

package handoff

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// python runs a program in that language until it has ended.
func python(t *testing.T, program string, arguments ...string) (output *bufio.Reader, wait func()) {
	t.Helper()
	interpreter, err := exec.LookPath("python3")
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(bounded(t), interpreter, append([]string{"-c", program}, arguments...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(stdout), func() {
		t.Helper()
		_, _ = io.Copy(io.Discard, stdout)
		if err := cmd.Wait(); err != nil {
			t.Errorf("python: %v\n%s", err, &stderr)
		}
	}
}

const pythonReceiver = `
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listening", flush=True)
for attempts in (1, 3):  # one by dial, then three over one connection
    conn, _ = listener.accept()
    for _ in range(attempts):
        message, fds, flags, _ = socket.recv_fds(conn, 4096, 16)
        print(message.hex(), len(fds), flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), flush=True)
        os.write(fds[0], b"hello")
        os.close(fds[0])
    print(repr(conn.recv(1)), flush=True)
`

func TestBareToPython(t *testing.T) {
	path := filepath.Join(t.TempDir(), "handoff")
	output, wait := python(t, pythonReceiver, path)
	expect := func(want string) {
		t.Helper()
		if have, err := output.ReadString('\n'); err != nil || have != want+"\n" {
			t.Errorf("python: want %q, have %q, %v", want, have, err)
		}
	}
	hello := func(read io.Reader) {
		t.Helper()
		buffer := make([]byte, 5)
		if _, err := io.ReadFull(read, buffer); err != nil || string(buffer) != "hello" {
			t.Errorf("want hello, have %q, %v", buffer, err)
		}
	}
	attempt := hex.EncodeToString(secret) + " 1 0"
	token := parse(t, secret)

	expect("listening")
	read, write := pipe(t)
	if err := DialBare(bounded(t), path, token, write); err != nil {
		t.Fatal(err)
	}
	expect(attempt)
	hello(read)
	expect("b''")

	conn := dial(t, path)
	for range 3 {
		read, write := pipe(t)
		if err := SendBare(conn, token, write); err != nil {
			t.Fatal(err)
		}
		expect(attempt)
		hello(read)
	}
	conn.Close()
	expect("b''")
	wait()
}

const pythonSender = `
import os, socket, sys
token = bytes.fromhex(sys.argv[2])
for attempts in (1, 3):  # one by dial, then three over one connection
    conn = socket.socket(socket.AF_UNIX)
    conn.connect(sys.argv[1])
    for i in range(attempts):
        read, write = os.pipe()
        socket.send_fds(conn, [token], [write])
        os.close(write)
        print(os.read(read, 5).decode(), flush=True)
    conn.close()
`

func TestBareFromPython(t *testing.T) {
	listener, path := listen(t)
	output, wait := python(t, pythonSender, path, hex.EncodeToString(secret))
	token := parse(t, secret)
	for _, attempts := range []int{1, 3} {
		conn := accept(t, listener)
		if err := SameUser(conn); err != nil {
			t.Error(err)
		}
		for range attempts {
			file, err := ReceiveBare(bounded(t), conn, token.Verify)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(file, "hello")
			file.Close()
			if have, err := output.ReadString('\n'); have != "hello\n" {
				t.Errorf("python: want hello, have %q, %v", have, err)
			}
		}
	}
	wait()
}
