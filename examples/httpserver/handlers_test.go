package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestRoutes(t *testing.T) {
	server := httptest.NewServer(routes(3, 4711))
	defer server.Close()
	tests := map[string]struct {
		status int
		body   string
	}{
		"GET /":                   {200, "generation 3 pid 4711\n"},
		"GET /x":                  {404, "404 page not found\n"},
		"POST /":                  {405, "Method Not Allowed\n"},
		"GET /echo":               {405, "Method Not Allowed\n"},
		"GET /slow?d=1ms":         {200, "waited 1ms\n"},
		"GET /slow?d=0":           {200, "waited 0s\n"},
		"GET /stream?d=0s":        {200, "line 1\nend\n"},
		"GET /stream?d=150ms":     {200, "line 1\nline 2\nend\n"},
		"GET /slow":               {400, ""},
		"GET /slow?d=1":           {400, ""},
		"GET /slow?d=-1s":         {400, ""},
		"GET /slow?d=10m1ns":      {400, ""},
		"GET /slow?d=9999999999h": {400, ""},
		"GET /stream?d=":          {400, ""},
		"GET /stream?d=%00":       {400, ""},
	}
	for line, want := range tests {
		t.Run(line, func(t *testing.T) {
			method, path, _ := strings.Cut(line, " ")
			request, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			if want.status == 400 {
				want.body = "want ?d= and a time from 0s to 10m0s, like 1.5s\n"
			}
			if err != nil || answer.StatusCode != want.status || string(body) != want.body {
				t.Errorf("got %d %q, %v; want %d %q", answer.StatusCode, body, err, want.status, want.body)
			}
		})
	}
}

// TestSlowIsSlow checks that d is waited for, and no longer than the client stays.
func TestSlowIsSlow(t *testing.T) {
	left := make(chan struct{}, 1)
	handler := routes(1, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
		left <- struct{}{}
	}))
	defer server.Close()
	begin := time.Now()
	answer, err := http.Get(server.URL + "/slow?d=60ms")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	<-left
	if took := time.Since(begin); took < 60*time.Millisecond {
		t.Errorf("answered after %v, want 60ms", took)
	}
	for _, path := range []string{"/slow?d=5m", "/stream?d=5m"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		conn.Close()
		select {
		case <-left:
		case <-time.After(10 * time.Second):
			t.Errorf("%s goes on without its client", path)
		}
	}
}

func TestEcho(t *testing.T) {
	server := httptest.NewServer(routes(1, 1))
	defer server.Close()
	body := make([]byte, 1<<20+7)
	rand.Read(body)
	for name, test := range map[string]struct {
		request io.Reader
		length  int64
		want    []byte
	}{
		"length known":   {bytes.NewReader(body), int64(len(body)), body},
		"length unknown": {io.MultiReader(bytes.NewReader(body)), -1, body},
		"nothing":        {http.NoBody, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			answer, err := http.Post(server.URL+"/echo", "", test.request)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			got, err := io.ReadAll(answer.Body)
			if err != nil || !bytes.Equal(got, test.want) || answer.ContentLength != test.length {
				t.Errorf("got %d bytes of %d announced, %v; want %d of %d", len(got), answer.ContentLength, err, len(test.want), test.length)
			}
		})
	}
}

// TestEchoStreams sends the second half of a body only when the first is back, and then half of the next one.
func TestEchoStreams(t *testing.T) {
	server := httptest.NewServer(routes(1, 1))
	defer server.Close()
	for _, chunked := range []bool{false, true} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		r := bufio.NewReader(conn)
		begin := func() io.Reader {
			t.Helper()
			framing, first := "Content-Length: 10", "hello"
			if chunked {
				framing, first = "Transfer-Encoding: chunked", "5\r\nhello\r\n"
			}
			fmt.Fprintf(conn, "POST /echo HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s", framing, first)
			answer, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(answer.Body, make([]byte, 5)); err != nil {
				t.Fatalf("first half: %v", err)
			}
			return answer.Body
		}
		rest := begin()
		if chunked {
			fmt.Fprint(conn, "5\r\nworld\r\n0\r\n\r\n")
		} else {
			fmt.Fprint(conn, "world")
		}
		if got, err := io.ReadAll(rest); err != nil || string(got) != "world" {
			t.Errorf("chunked %v: second half %q, %v", chunked, got, err)
		}
		rest = begin()
		conn.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(rest); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("chunked %v: half a body is echoed as if it were whole: %q, %v", chunked, got, err)
		}
	}
}
