package main

import (
	"bytes"
	"errors"
	"testing"
)

// clientFrame makes a frame as a client sends it.
func clientFrame(first byte, payload []byte) []byte {
	key := [4]byte{1, 2, 3, 4}
	frame := serverFrame(first, payload)
	frame[1] |= 0x80
	header := len(frame) - len(payload)
	frame = append(frame[:header:header], key[:]...)
	for i, b := range payload {
		frame = append(frame, b^key[i%4])
	}
	return frame
}

func serverFrame(first byte, payload []byte) []byte {
	frame := []byte{first}
	switch n := len(payload); {
	case n < 126:
		frame = append(frame, byte(n))
	case n < 1<<16:
		frame = append(frame, 126, byte(n>>8), byte(n))
	default:
		frame = append(frame, 127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(frame, payload...)
}

// conversation is what a client says and what it is to hear.
func conversation() (says, hears []byte) {
	long, longest := bytes.Repeat([]byte("0123456"), 100), bytes.Repeat([]byte("abc"), 30_000)
	for _, frame := range []struct {
		first, answer byte
		payload       []byte
	}{
		{0x81, 0x81, []byte("hello")},
		{0x82, 0x82, nil},
		{0x01, 0x01, long}, // a message in three parts, with a ping and a pong between them
		{0x89, 0x8a, []byte("ping")},
		{0x00, 0x00, longest},
		{0x8a, 0, []byte("pong")},
		{0x80, 0x80, []byte("end")},
		{0x88, 0x88, []byte("\x03\xe8bye")},
	} {
		says = append(says, clientFrame(frame.first, frame.payload)...)
		if frame.first != 0x8a { // which is a pong
			hears = append(hears, serverFrame(frame.answer, frame.payload)...)
		}
	}
	return says, hears
}

// However the bytes arrive, and in whichever generation, the answer is the same.
func TestInvariant5WebSocketEchoGoesOnFromAnyByte(t *testing.T) {
	says, want := conversation()
	for _, step := range []int{1, 2, 3, 5, 14, 1000, len(says)} {
		var have, rest []byte
		e, ended := new(frameEcho), false
		for at := 0; at < len(says); at += step {
			rest = append(rest, says[at:min(at+step, len(says))]...)
			used, answer, end := e.echo(nil, rest)
			have, rest, ended = append(have, answer...), rest[used:], end
			state := e.state()
			e = new(frameEcho) // the next generation's
			if err := e.restore(state); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(want, have) || !ended {
			t.Errorf("%d bytes at a time: want %d bytes and the end, have %d, equal %v, ended %v", step, len(want), len(have), bytes.Equal(want, have), ended)
		}
	}
}

func TestWebSocketEchoEndsWithAnErrorOfTheClient(t *testing.T) {
	for name, frame := range map[string][]byte{
		"no mask":           serverFrame(0x81, []byte("hello")),
		"reserved bit":      clientFrame(0xc1, nil),
		"reserved opcode":   clientFrame(0x83, nil),
		"reserved control":  clientFrame(0x8b, nil),
		"long ping":         clientFrame(0x89, make([]byte, 126)),
		"ping in parts":     clientFrame(0x09, nil),
		"length beyond int": {0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		_, answer, end := new(frameEcho).echo(nil, frame)
		if !end || !bytes.Equal(answer, protocolErrorFrame) {
			t.Errorf("%s: want a close frame and the end, have %x, %v", name, answer, end)
		}
		if _, _, err := new(frameEcho).begin(frame); !errors.Is(err, errFrame) {
			t.Errorf("%s: want errFrame, have %v", name, err)
		}
	}
}
