package restart

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/segue-go/segue/listener"
)

func TestDrainingServerAnnouncesTheEndOfConnections(t *testing.T) {
	for _, test := range []struct {
		name    string
		leaving bool
		upgrade string // the request's header
		want    string
	}{
		{"serving", false, "", ""},
		{"leaving", true, "", "close"},
		{"leaving, and the handler would answer Connection: Upgrade", true, "websocket", ""},
	} {
		srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		s := newHTTPServer(srv)
		s.leaving.Store(test.leaving)
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		if test.upgrade != "" {
			request.Header.Set("Upgrade", test.upgrade)
		}
		recorder := httptest.NewRecorder()
		srv.Handler.ServeHTTP(recorder, request)
		if have := recorder.Header().Get("Connection"); test.want != have {
			t.Errorf("%s: want Connection %q, have %q", test.name, test.want, have)
		}
	}
}

func TestHTTP2IsAdoptedOnlyIfNobodyElseHasIt(t *testing.T) {
	var without http.Protocols
	without.SetHTTP1(true)
	for _, test := range []struct {
		name string
		srv  *http.Server
		want bool
	}{
		{"default", &http.Server{}, true},
		{"switched off by an empty TLSNextProto", &http.Server{TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}, false},
		{"switched off by Protocols", &http.Server{Protocols: &without}, false},
	} {
		s := newHTTPServer(test.srv)
		if have := s.http2 != nil; test.want != have {
			t.Errorf("%s: want %v, have %v", test.name, test.want, have)
		}
		if _, have := test.srv.TLSNextProto["h2"]; test.want != have {
			t.Errorf("%s: TLSNextProto: want %v, have %v", test.name, test.want, have)
		}
	}
}

// The handler in front of the user's costs a request nothing on the heap.
func TestInvariant9HandlerDoesNotAllocate(t *testing.T) {
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	newHTTPServer(srv)
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	var w discard
	if have := testing.AllocsPerRun(1000, func() { srv.Handler.ServeHTTP(w, request) }); have != 0 {
		t.Errorf("allocations per request: want 0, have %v", have)
	}
}

type discard struct{}

func (discard) Header() http.Header         { return nil }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

func TestDrainCutsWhatIsLeftAndCounts(t *testing.T) {
	var set listener.Set
	defer set.Close()
	ln, err := set.Listen(t.Context(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newHTTPServer(&http.Server{})
	s.listeners = append(s.listeners, ln)
	served := make(chan error, 1)
	go func() { served <- s.serve(ln) }()
	client := &http.Client{Transport: &http.Transport{}}
	response, err := client.Get("http://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil { // else the client closes its connection
		t.Fatal(err)
	}
	response.Body.Close()
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	if want, have := 1, s.drain(expired, ln, nil); want != have {
		t.Errorf("cut: want %d, have %d", want, have)
	}
	if have := ln.Conns(); have != 0 {
		t.Errorf("connections: want none, have %d", have)
	}
	if have := s.Close(); have != nil { // again: or a failure above would leave serve waiting
		t.Error(have)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("serve: want ErrServerClosed, have %v", err)
	}
}
