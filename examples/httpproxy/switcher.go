package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/segue-go/segue/listener"
	"github.com/segue-go/segue/restart"
)

// pairKind is what the two connections of a client that has switched protocols (to a WebSocket, say) are called between two generations.
const pairKind = "httpproxy pair"

// maxHeader bounds the header of an answer to a request to switch.
const maxHeader = 1 << 20

// switcher is the proxy's transport. A request to switch to another protocol gets a connection of its own, because what comes after the answer
// is relayed by Segue: httputil.ReverseProxy would copy it itself, in this process until the end.
type switcher struct {
	gen    *restart.Generation
	dialer *net.Dialer
	pairs  *restart.Relays
	plain  http.RoundTripper // for all other requests
}

// switched is how RoundTrip returns 101 Switching Protocols: not as a response, which httputil.ReverseProxy would deal with.
type switched struct {
	response *http.Response
	upstream *listener.Conn // what follows the response is read from it
}

func (s *switched) Error() string { return s.response.Status }

// RoundTrip is [http.RoundTripper]'s. It fails with *switched if the upstream switches protocols.
func (s *switcher) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Upgrade") == "" {
		return s.plain.RoundTrip(r)
	}
	address := r.URL.Host
	if r.URL.Port() == "" {
		address = net.JoinHostPort(r.URL.Hostname(), "80")
	}
	dialed, err := s.dialer.DialContext(r.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	conn, err := s.gen.Own(dialed)
	if err != nil {
		_ = dialed.Close()
		return nil, err
	}
	stop := context.AfterFunc(r.Context(), func() { _ = conn.Close() }) // the client has gone
	response, err := s.ask(r, conn)
	if err == nil {
		response.Body = &ownBody{response.Body, conn, stop} // as any other answer
		return response, nil
	}
	if _, ok := errors.AsType[*switched](err); !stop() || !ok {
		_ = conn.Close()
	}
	return nil, err
}

// ask sends the request and reads the header of the answer.
func (s *switcher) ask(r *http.Request, conn *listener.Conn) (*http.Response, error) {
	_ = conn.SetDeadline(time.Now().Add(answerTimeout)) // if it fails, so does Write
	if err := r.Write(conn); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	reader := bufio.NewReader(limited)
	response, err := readFinal(reader, r)
	if err != nil && limited.N == 0 {
		return nil, fmt.Errorf("the header of the answer is longer than %d bytes", maxHeader)
	}
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	if response.StatusCode != http.StatusSwitchingProtocols {
		limited.N = 1<<63 - 1
		return response, nil
	}
	if have, want := response.Header.Get("Upgrade"), r.Header.Get("Upgrade"); !strings.EqualFold(have, want) {
		return nil, fmt.Errorf("upstream switches to %.40q, asked for %.40q", have, want)
	}
	ahead, _ := reader.Peek(reader.Buffered())
	conn.Unread(ahead)
	return nil, &switched{response, conn}
}

// readFinal reads the header of an answer, beyond those that only tell to wait.
func readFinal(reader *bufio.Reader, r *http.Request) (*http.Response, error) {
	const maxInterim = 5
	for range maxInterim {
		response, err := http.ReadResponse(reader, r)
		if err != nil || response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, err
		}
	}
	return nil, fmt.Errorf("more than %d interim answers", maxInterim)
}

// ownBody is a body whose connection ends with it, whether or not all of it was read.
type ownBody struct {
	io.Reader
	conn net.Conn
	stop func() bool
}

func (b *ownBody) Close() error {
	b.stop()
	return b.conn.Close()
}

// relay tells the client of the switch, and relays until the end, or until the successor does. R is the request to the upstream.
func (s *switcher) relay(w http.ResponseWriter, r *http.Request, to *switched) {
	client, err := restart.Hijack(w, r)
	if err != nil {
		_ = to.upstream.Close()
		slog.Warn("cannot switch protocols", "error", err)
		http.Error(w, http.StatusText(http.StatusBadGateway), http.StatusBadGateway) // of HTTP/2, say
		return
	}
	_ = client.SetWriteDeadline(time.Now().Add(answerTimeout))
	answer := http.Response{ProtoMajor: 1, ProtoMinor: 1, StatusCode: to.response.StatusCode, Status: to.response.Status, Header: to.response.Header}
	var header bytes.Buffer
	_ = answer.Write(&header) // does not fail
	if _, err := client.Write(header.Bytes()); err != nil {
		_, _ = client.Close(), to.upstream.Close()
		return
	}
	s.pairs.Serve(s.gen.Context(), client, to.upstream)
}

// logEnd tells of pairs that ended in another way than by both of them saying so.
func logEnd(client, upstream *listener.Conn, relay *listener.Relay, err error) {
	if err == nil || errors.Is(err, net.ErrClosed) {
		return // the generation logs those that were closed at the end of the drain
	}
	up, down := relay.Passed()
	slog.Info("relay ended", "client", client.RemoteAddr().String(), "upstream", upstream.RemoteAddr().String(),
		"up", up, "down", down, "error", err)
}
