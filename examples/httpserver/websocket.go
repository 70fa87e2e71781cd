package main

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/segue-go/segue/listener"
	"github.com/segue-go/segue/restart"
)

// wsKind is what the connections of /ws are called between two generations.
const wsKind = "websocket echo"

// handleWebSockets serves /ws, an echo for WebSockets (RFC 6455) that stay open through upgrades, in the middle of a frame, too.
func handleWebSockets(gen *restart.Generation, mux *http.ServeMux) {
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		if !isHandshake(r) {
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Sec-WebSocket-Version", "13")
			http.Error(w, "want a WebSocket handshake, version 13", http.StatusUpgradeRequired)
			return
		}
		conn, err := restart.Hijack(w, r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotImplemented) // over TLS
			return
		}
		defer conn.Close()
		accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(accept[:])); err != nil {
			return
		}
		(&frameEcho{gen: gen, conn: conn}).run(gen.Context())
	})
	gen.Adopt(wsKind, func(ctx context.Context, conn *listener.Conn, state []byte) {
		e := &frameEcho{gen: gen, conn: conn}
		if err := e.restore(state); err != nil {
			slog.Error("cannot go on with a WebSocket", "error", err)
			return
		}
		e.run(ctx)
	})
}

func isHandshake(r *http.Request) bool {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	return err == nil && len(key) == 16 && r.Header.Get("Sec-WebSocket-Version") == "13" &&
		hasToken(r.Header, "Connection", "upgrade") && hasToken(r.Header, "Upgrade", "websocket")
}

func hasToken(h http.Header, name, token string) bool {
	for _, value := range h.Values(name) {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

const (
	opcodeClose = 0x8
	opcodePing  = 0x9
	opcodePong  = 0xa
	// maxControl is the longest payload of one of these.
	maxControl = 125
)

// errFrame is a frame that no client may send.
var errFrame = errors.New("protocol error")

// protocolErrorFrame is a close frame with code 1002.
var protocolErrorFrame = []byte{0x80 | opcodeClose, 2, 0x03, 0xea}

// frameEcho sends each frame back as it comes, so that it needs to know no more of a message than what is left of the frame.
type frameEcho struct {
	gen  *restart.Generation
	conn *listener.Conn

	opcode byte    // of the frame under way
	left   uint64  // of its payload
	key    [4]byte // masks the next bytes of it
}

func (e *frameEcho) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, e.conn.Interrupt)
	defer stop()
	in, out := make([]byte, 16<<10), make([]byte, 0, 20<<10)
	have := 0 // bytes in in
	for {
		n, err := e.conn.Read(in[have:])
		have += n
		used, answer, end := e.echo(out[:0], in[:have])
		if len(answer) > 0 {
			if _, err := e.conn.Write(answer); err != nil {
				return
			}
		}
		have = copy(in, in[used:have])
		if end {
			return
		}
		if errors.Is(err, listener.ErrInterrupted) {
			// This generation leaves. A part of a header may have been read.
			e.conn.Unread(in[:have])
			have = 0
			if err := e.gen.Detach(wsKind, e.state(), e.conn); err == nil {
				return
			}
			continue // nobody takes it: it ends with the drain
		}
		if err != nil {
			return
		}
	}
}

// echo appends the answer to what has come in, as far as that can be used. The connection ends with a frame that says so.
func (e *frameEcho) echo(out, in []byte) (used int, answer []byte, end bool) {
	for {
		if e.left == 0 {
			if e.opcode == opcodeClose {
				return used, out, true
			}
			n, header, err := e.begin(in[used:])
			if err != nil {
				return used, append(out, protocolErrorFrame...), true
			}
			if n == 0 {
				return used, out, false
			}
			used += n
			out = append(out, header...)
			continue
		}
		if used == len(in) {
			return used, out, false
		}
		n := int(min(uint64(len(in)-used), e.left))
		for i, b := range in[used : used+n] {
			if e.opcode != opcodePong {
				out = append(out, b^e.key[i%4])
			}
		}
		used += n
		e.left -= uint64(n)
		e.key = [4]byte{e.key[n%4], e.key[(n+1)%4], e.key[(n+2)%4], e.key[(n+3)%4]}
	}
}

// begin reads a frame's header, 0 bytes of it if it is not complete, and makes the answer's.
func (e *frameEcho) begin(in []byte) (n int, header []byte, err error) {
	if len(in) < 2 {
		return 0, nil, nil
	}
	opcode, length, masked := in[0]&0xf, uint64(in[1]&0x7f), in[1]&0x80 != 0
	n = 2
	switch length {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if control := opcode >= opcodeClose; !masked || in[0]&0x70 != 0 || opcode > opcodePong || opcode > 2 && !control ||
		control && (length > maxControl || in[0]&0x80 == 0) {
		return 0, nil, errFrame
	}
	if len(in) < n+4 {
		return 0, nil, nil
	}
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(in[2:]))
	case 127:
		if length = binary.BigEndian.Uint64(in[2:]); length>>63 != 0 {
			return 0, nil, errFrame
		}
	}
	e.opcode, e.left = opcode, length
	copy(e.key[:], in[n:])
	switch opcode {
	case opcodePong:
		return n + 4, nil, nil // nobody has asked for it, and it needs no answer
	case opcodePing:
		header = append(header, in[0]&0xf0|opcodePong)
	default:
		header = append(header, in[0])
	}
	header = append(header, in[1]&0x7f)
	return n + 4, append(header, in[2:n]...), nil
}

// state is what a successor needs to go on.
func (e *frameEcho) state() []byte {
	return append(binary.BigEndian.AppendUint64([]byte{e.opcode}, e.left), e.key[:]...)
}

func (e *frameEcho) restore(state []byte) error {
	if len(state) != 13 {
		return fmt.Errorf("state of %d bytes, want 13", len(state))
	}
	e.opcode, e.left = state[0], binary.BigEndian.Uint64(state[1:])
	copy(e.key[:], state[9:])
	return nil
}
