//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// mainVariable makes the test binary the server.
const mainVariable = "SEGUE_WEBSOCKET_MAIN"

// within is how long the test waits for anything.
const within = 30 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// server is a chain of generations.
type server struct {
	t       *testing.T
	pidFile string
	addr    string
	log     chan string // is closed when all generations have ended
	seen    strings.Builder
}

func start(t *testing.T) *server {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, pidFile: filepath.Join(t.TempDir(), "pid"), log: make(chan string, 10_000)}
	cmd := exec.Command(os.Args[0], "-listen", "127.0.0.1:0", "-pidfile", s.pidFile, "-probation", "50ms", "-drain", within.String())
	cmd.Env = append(os.Environ(), mainVariable+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stdout, cmd.Stderr = write, write
	err = cmd.Start()
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.log)
		defer read.Close()
		for lines := bufio.NewScanner(read); lines.Scan(); {
			s.log <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		s.signal(syscall.SIGTERM)
		late := time.AfterFunc(within, func() { s.signal(syscall.SIGKILL) })
		defer late.Stop()
		for line := range s.log {
			s.note(line)
		}
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(s.seen.String())
		}
	})
	s.addr = s.waitFor(`msg=listening .*addr=(\S+) generation=1`)
	s.waitFor(`msg=(serving) .*generation=1`)
	return s
}

func (s *server) note(line string) {
	fmt.Fprintln(&s.seen, line)
	for _, bad := range []string{"DATA RACE", "level=ERROR", "panic:", "was not taken", "room ends", "closed connections"} {
		if strings.Contains(line, bad) {
			s.t.Error(line)
		}
	}
}

// waitFor returns what the pattern's parentheses found in the next line that fits.
func (s *server) waitFor(pattern string) string {
	s.t.Helper()
	expression := regexp.MustCompile(pattern)
	late := time.After(within)
	for {
		select {
		case line, ok := <-s.log:
			if !ok {
				s.t.Fatalf("the server ended before %q", pattern)
			}
			s.note(line)
			if found := expression.FindStringSubmatch(line); found != nil {
				return found[1]
			}
		case <-late:
			s.t.Fatalf("no %q", pattern)
		}
	}
}

// signal signals the generation that serves.
func (s *server) signal(signal syscall.Signal) {
	content, err := os.ReadFile(s.pidFile)
	if err != nil {
		return // it has ended
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(content))); err == nil {
		_ = syscall.Kill(pid, signal)
	}
}

func (s *server) upgrade(generation int) {
	s.t.Helper()
	s.signal(syscall.SIGHUP)
	s.waitFor(fmt.Sprintf(`msg=(serving) .*generation=%d`, generation))
}

// slowly sends what is written in small pieces from some time on, so that most upgrades come in the middle of a frame.
type slowly struct {
	net.Conn
	pause time.Duration
	on    *atomic.Bool
}

func (c slowly) Write(p []byte) (n int, err error) {
	if !c.on.Load() {
		return c.Conn.Write(p)
	}
	for len(p) > 0 && err == nil {
		var m int
		m, err = c.Conn.Write(p[:min(len(p), 5)])
		n, p = n+m, p[m:]
		time.Sleep(c.pause)
	}
	return n, err
}

// client is one member of a room.
type client struct {
	name  string
	ws    *websocket.Conn
	heard []string
	ended chan error // of reading, which is to end with the client's own Close
}

func (s *server) join(room, name string, pause time.Duration) (*client, error) {
	var joined atomic.Bool
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil || pause == 0 {
			return conn, err
		}
		return slowly{conn, pause, &joined}, nil
	}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, fmt.Sprintf("ws://%s/chat?room=%s&name=%s", s.addr, room, name),
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return nil, err
	}
	joined.Store(true)
	return &client{name: name, ws: ws, ended: make(chan error, 1)}, nil
}

// listen hears as many messages as the room has to say.
func (c *client) listen(messages int) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*within)
	defer cancel()
	for len(c.heard) < messages {
		_, text, err := c.ws.Read(ctx)
		if err != nil {
			c.ended <- fmt.Errorf("%s: after %d of %d messages: %w", c.name, len(c.heard), messages, err)
			return
		}
		c.heard = append(c.heard, string(text))
	}
	c.ended <- nil
}

// talk says the numbers from 1 on, every third one in two fragments.
func (c *client) talk(messages int, interval time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*within)
	defer cancel()
	next := time.NewTicker(interval)
	defer next.Stop()
	for number := 1; number <= messages; number++ {
		w, err := c.ws.Writer(ctx, websocket.MessageText)
		if err != nil {
			return err
		}
		text := strconv.Itoa(number)
		if number%3 == 0 {
			text = " " + text
			if _, err := w.Write([]byte(text[:1])); err != nil {
				return err
			}
			text = text[1:]
		}
		if _, err := w.Write([]byte(text)); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		<-next.C
	}
	return nil
}

// 200 members of ten rooms chat through 10 upgrades. Nobody has to come back, and everybody hears every message of the room once, in the
// order in which it was said, and in the same order as everybody else.
func TestInvariant5ChatGoesOnThroughUpgrades(t *testing.T) {
	const rooms, members, upgrades = 10, 20, 10
	s := start(t)
	clients := make([][]*client, rooms)
	for room := range clients {
		for member := range members {
			pause := time.Duration(0)
			if member%4 == 0 {
				pause = 20 * time.Millisecond
			}
			c, err := s.join(fmt.Sprint("room", room), fmt.Sprint("member", member), pause)
			if err != nil {
				t.Fatal(err)
			}
			clients[room] = append(clients[room], c)
		}
	}
	const each, interval = 40, 200 * time.Millisecond
	var talking sync.WaitGroup
	for _, room := range clients {
		for _, c := range room {
			go c.listen(members * each)
			talking.Go(func() {
				if err := c.talk(each, interval); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
			})
		}
	}
	next := time.NewTicker(each * interval / (upgrades + 2))
	defer next.Stop()
	for generation := 2; generation <= upgrades+1; generation++ {
		<-next.C // spread over the conversation
		s.upgrade(generation)
	}
	talking.Wait()
	for number, room := range clients {
		for _, c := range room {
			if err := <-c.ended; err != nil {
				t.Fatalf("room %d: %v", number, err)
			}
		}
		said := make(map[string]int) // how many messages of each member were heard
		for i, message := range room[0].heard {
			for _, c := range room[1:] {
				if c.heard[i] != message {
					t.Fatalf("room %d, message %d: %s heard %q, %s %q", number, i, room[0].name, message, c.name, c.heard[i])
				}
			}
			name, text, _ := strings.Cut(message, ": ")
			said[name]++
			if have := strings.TrimSpace(text); have != strconv.Itoa(said[name]) {
				t.Fatalf("room %d, %s: want %d, have %q", number, name, said[name], have)
			}
		}
		for _, c := range room {
			_ = c.ws.Close(websocket.StatusNormalClosure, "")
		}
	}
	t.Logf("%d clients heard %d messages", rooms*members, rooms*members*members*each)
}
