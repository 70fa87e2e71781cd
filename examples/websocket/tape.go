package main

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/segue-go/segue/listener"
)

const (
	// maxTape bounds what is kept of a message that is not complete; maxBacklog what a member who does not read can let pile up.
	maxTape    = 16 << 10
	maxBacklog = 64 << 10
	// goodbyeTimeout is how long the last words to a member may take.
	goodbyeTimeout = time.Second
)

var (
	errTape    = errors.New("too many frames in one message")
	errBacklog = errors.New("reads too slowly")
)

// tape is the connection below a WebSocket, which can be taken from under one websocket.Conn and put under another one, in another
// process, at any byte.
//
// A websocket.Conn keeps to itself how far it has come in a message. So tape keeps the bytes of what is not complete: played
// again to a new websocket.Conn, they bring it to where the old one was. What is complete need not be kept longer than to the next
// Read, for which one goroutine first asks when it has dealt with everything before. And Write only takes notes, which another
// goroutine writes, so that whoever has something to say to many does not wait for the slowest, and a frame of which a part was
// written can be completed elsewhere.
type tape struct {
	*listener.Conn

	// Of the goroutine that reads.
	rest      []byte // what was read since the end of the last message
	complete  int    // how much of that is complete messages, and control frames between them
	scanned   int    // how much of that are complete frames
	inMessage bool   // at scanned

	mu       sync.Mutex
	change   *sync.Cond
	out      []byte // to be written
	handOver bool   // Close leaves the connection open
	closing  bool   // the writer ends when everything is written
	stopped  bool   // the writer ends now
	failed   bool   // the connection was closed because of an error
	written  chan struct{}
}

func newTape(conn *listener.Conn, out []byte) *tape {
	t := &tape{Conn: conn, out: out, written: make(chan struct{})}
	t.change = sync.NewCond(&t.mu)
	go t.write()
	return t
}

// Read keeps what it reads.
func (t *tape) Read(p []byte) (int, error) {
	t.rest, t.scanned, t.complete = append(t.rest[:0], t.rest[t.complete:]...), t.scanned-t.complete, 0
	if len(t.rest) > maxTape {
		return 0, errTape
	}
	n, err := t.Conn.Read(p)
	t.rest = append(t.rest, p[:n]...)
	t.scan()
	if errors.Is(err, listener.ErrInterrupted) {
		t.mu.Lock()
		t.handOver = true
		t.mu.Unlock()
	}
	return n, err
}

// scan finds the ends of frames (RFC 6455, section 5.2). What makes no sense is left to the websocket.Conn to find out.
func (t *tape) scan() {
	for {
		frame := t.rest[t.scanned:]
		if len(frame) < 2 {
			return
		}
		header, length := 2, uint64(frame[1]&0x7f)
		extended := map[uint64]int{126: 2, 127: 8}[length]
		if len(frame) < header+extended {
			return
		}
		if extended > 0 {
			length = 0
			for _, b := range frame[header : header+extended] {
				length = length<<8 | uint64(b)
			}
		}
		header += extended + 4 // the mask
		if length > maxTape || uint64(len(frame)) < uint64(header)+length {
			return
		}
		t.scanned += header + int(length)
		if control := frame[0]&0x08 != 0; !control {
			t.inMessage = frame[0]&0x80 == 0
		}
		if !t.inMessage {
			t.complete = t.scanned
		}
	}
}

// Write has p written soon.
func (t *tape) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closing || t.stopped:
		return 0, net.ErrClosed
	case len(t.out)+len(p) > maxBacklog:
		t.fail()
		return 0, errBacklog
	}
	t.out = append(t.out, p...)
	t.change.Signal()
	return len(p), nil
}

func (t *tape) write() {
	defer close(t.written)
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		for len(t.out) == 0 && !t.closing && !t.stopped {
			t.change.Wait()
		}
		if t.stopped || len(t.out) == 0 {
			return
		}
		out := t.out
		t.out = nil
		t.mu.Unlock()
		n, err := t.Conn.Write(out)
		t.mu.Lock()
		t.out = append(out[n:len(out):len(out)], t.out...)
		if err != nil {
			if !t.stopped {
				t.fail()
			}
			return
		}
	}
}

// fail ends writing and, soon, reading. The caller holds mu.
func (t *tape) fail() {
	t.stopped, t.failed = true, true
	t.change.Signal()
	_ = t.Conn.Close()
}

// Close writes what is left and closes the connection. It does neither if the connection is to be handed on.
func (t *tape) Close() error {
	t.mu.Lock()
	handOver := t.handOver
	t.closing = !handOver
	t.change.Signal()
	t.mu.Unlock()
	if handOver {
		return nil
	}
	_ = t.Conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	<-t.written
	return t.Conn.Close()
}

// interrupted reports whether the connection's Read was interrupted, and so whether it is to be handed on.
func (t *tape) interrupted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.handOver
}

// takeOut ends writing, after reading has ended, and returns the connection, with what the next websocket.Conn is to read first, and what
// is to be written before anything else. It reports false if there is no connection any more.
func (t *tape) takeOut() (conn *listener.Conn, out []byte, ok bool) {
	t.mu.Lock()
	t.stopped = true
	t.change.Signal()
	t.mu.Unlock()
	_ = t.Conn.SetWriteDeadline(time.Unix(1, 0))
	<-t.written
	_ = t.Conn.SetWriteDeadline(time.Time{})
	t.Conn.Unread(t.rest[t.complete:])
	return t.Conn, t.out, !t.failed
}

// hijack is an http.ResponseWriter that gives a websocket.Conn a tape.
type hijack struct {
	http.ResponseWriter
	take func() (*tape, error)
	tape *tape
}

func (h *hijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	var err error
	if h.tape, err = h.take(); err != nil {
		return nil, nil, err
	}
	return h.tape, bufio.NewReadWriter(bufio.NewReaderSize(h.tape, 1<<10), bufio.NewWriter(h.tape)), nil
}

// revive makes a websocket.Conn of a connection that was one before. The handshake is a play: its request is made up here, and its
// answer is not sent.
func revive(conn *listener.Conn, out []byte) (*tape, *websocket.Conn, error) {
	w := &hijack{ResponseWriter: nobody{}, take: func() (*tape, error) { return newTape(conn, out), nil }}
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}}
	ws, err := websocket.Accept(w, r, nil)
	return w.tape, ws, err
}

type nobody struct{}

func (nobody) Header() http.Header         { return http.Header{} }
func (nobody) Write(p []byte) (int, error) { return len(p), nil }
func (nobody) WriteHeader(int)             {}
