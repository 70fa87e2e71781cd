//go:build unix

package listener

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// successorEnv holds the sockets for a successor as JSON. Their descriptors start at 3.
const successorEnv = "SEGUE_LISTENER_TEST_SOCKETS"

func TestMain(m *testing.M) {
	if list, ok := os.LookupEnv(successorEnv); ok {
		if err := successor(list); err != nil {
			fmt.Fprintln(os.Stderr, "successor:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// successor inherits, asks for everything with the words in Network and Address, and answers "NAME of PID" on each, to one connection or one datagram
// per listener, until its standard input ends.
func successor(list string) error {
	var sockets []Socket
	if err := json.Unmarshal([]byte(list), &sockets); err != nil {
		return err
	}
	var s Set
	for i, sock := range sockets {
		sock.File = os.NewFile(uintptr(3+i), sock.Name)
		if err := s.Inherit(sock); err != nil {
			return err
		}
	}
	ctx := context.Background()
	for _, sock := range sockets {
		answer := []byte(sock.Name + " of " + strconv.Itoa(os.Getpid()))
		switch sock.Kind {
		case KindListener:
			l, err := s.Listen(ctx, sock.Name, sock.Network, sock.Address)
			if err != nil || !l.Inherited() {
				return fmt.Errorf("%s: %v", sock.Name, err)
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					c.Write(answer)
					c.Close()
				}
			}()
		case KindPacket:
			p, err := s.ListenPacket(ctx, sock.Name, sock.Network, sock.Address)
			if err != nil || !p.Inherited() {
				return fmt.Errorf("%s: %v", sock.Name, err)
			}
			go func() {
				for {
					if _, from, err := p.ReadFrom(make([]byte, 100)); err == nil {
						p.WriteTo(answer, from)
					} else {
						return
					}
				}
			}()
		case KindFile:
			f, err := s.File(sock.Name, nil)
			if err != nil {
				return err
			}
			if _, err := f.Write(answer); err != nil {
				return err
			}
		}
	}
	if unclaimed := s.CloseUnclaimed(); unclaimed != nil {
		return fmt.Errorf("unclaimed: %v", unclaimed)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return s.Close()
}

// Across processes, for every network: while the predecessor is paused the successor serves on the same addresses; when it dies without a word,
// the predecessor resumes and serves again; a second successor takes everything, and unlinks at its end.
func TestAcrossProcesses(t *testing.T) {
	ctx := testContext(t)
	s, _ := newSet(t)
	paths := []string{}
	addrs := map[string]net.Addr{}
	var listeners []*Listener
	for i, p := range streamPlaces(t) {
		l := must(s.Listen(ctx, fmt.Sprintf("stream-%02d", i), p.network, p.address))(t)
		addrs[l.Name()] = l.Addr()
		listeners = append(listeners, l)
		if strings.HasPrefix(p.network, "unix") && isPath(p.address) {
			paths = append(paths, p.address)
		}
	}
	for i, p := range packetPlaces(t) {
		conn := must(s.ListenPacket(ctx, fmt.Sprintf("packet-%02d", i), p.network, p.address))(t)
		addrs[conn.Name()] = conn.LocalAddr()
		if p.network == "unixgram" && isPath(p.address) {
			paths = append(paths, p.address)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	must(s.File("pipe", func() (*os.File, error) { return w, nil }))(t)

	checkBlocking := func(when string) {
		t.Helper()
		for name, m := range s.members {
			if !nonblock(t, m.inner) {
				t.Errorf("%s: %s became blocking", when, name)
			}
		}
	}
	checkServes := func(pid int) {
		t.Helper()
		for name, addr := range addrs {
			client := dial(t, addr)
			if strings.HasPrefix(name, "packet") {
				send(t, client, "?")
			}
			have := make([]byte, 100)
			n, err := client.Read(have)
			if want := name + " of " + strconv.Itoa(pid); err != nil || string(have[:n]) != want {
				t.Fatalf("%s: have %q, %v, want %q", addr, have[:n], err, want)
			}
			client.Close()
		}
		have := make([]byte, 100)
		n, err := r.Read(have)
		if want := "pipe of " + strconv.Itoa(pid); err != nil || string(have[:n]) != want {
			t.Errorf("pipe: have %q, %v, want %q", have[:n], err, want)
		}
	}

	s.Pause()
	first := startSuccessor(t, s)
	checkServes(first.Process.Pid)
	checkBlocking("a successor serves")
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.Wait()
	checkBlocking("the successor is dead")
	s.Resume()
	for _, l := range listeners {
		exchangeOver(t, l)
	}

	s.Pause()
	second := startSuccessor(t, s)
	if err := s.Leave(); err != nil {
		t.Fatal(err)
	}
	checkServes(second.Process.Pid)
	second.stdin.Close()
	if err := second.Wait(); err != nil {
		t.Error(err)
	}
	for _, path := range paths {
		if exists(path) {
			t.Errorf("%s is left", path)
		}
	}
	for name, addr := range addrs {
		if strings.HasPrefix(name, "stream") {
			if c, err := dialErr(addr); err == nil {
				c.Close()
				t.Errorf("%s: somebody still listens", addr)
			}
		}
	}
}

type process struct {
	*exec.Cmd
	stdin io.Closer
}

// startSuccessor starts this test binary as a successor of s and waits until it is ready.
func startSuccessor(t *testing.T, s *Set) process {
	t.Helper()
	sockets := must(s.Sockets())(t)
	cmd := exec.Command(must(os.Executable())(t))
	cmd.Stderr = os.Stderr
	stdin := must(cmd.StdinPipe())(t)
	stdout := must(cmd.StdoutPipe())(t)
	var plain []Socket
	for _, sock := range sockets {
		cmd.ExtraFiles = append(cmd.ExtraFiles, sock.File)
		defer sock.File.Close()
		sock.File = nil
		plain = append(plain, sock)
	}
	cmd.Env = append(os.Environ(), successorEnv+"="+string(must(json.Marshal(plain))(t)))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatal(errors.Join(fmt.Errorf("successor said %q", line), err))
	}
	return process{cmd, stdin}
}
