//go:build linux

package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// What a client that has gone has asked for is not waited for: neither for the header of the answer nor for the rest of its body.
func TestRequestsToSwitchEndWithTheirClients(t *testing.T) {
	const patience = answerTimeout / 2
	const header = "HTTP/1.1 200 OK\r\n\r\n"
	for name, test := range map[string]struct {
		said   string
		goesOn bool
	}{
		"no answer":    {},
		"half a body":  {said: header + "half"},
		"endless body": {said: "HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n", goesOn: true},
	} {
		t.Run(name, func(t *testing.T) {
			upstream, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { upstream.Close() })
			c := start(t, "-upstream", "http://"+upstream.Addr().String())
			client := newKeepAlive(t, c.Addr)
			client.say("GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			conn, err := upstream.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, test.said); err != nil {
				t.Fatal(err)
			}
			if test.goesOn {
				go func() { _, _ = io.Copy(conn, zeros{}) }()
			}
			if test.said != "" {
				if _, err := http.ReadResponse(client.reader, nil); err != nil {
					t.Fatal(err)
				}
			}
			_ = client.conn.Close()
			if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("want the end of the connection, have %v", err)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
