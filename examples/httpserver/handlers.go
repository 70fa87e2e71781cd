package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// maxTime bounds what a client can ask to wait for.
const maxTime = 10 * time.Minute

// routes is what the service does.
func routes(generation, pid int) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "generation %d pid %d\n", generation, pid)
	})
	mux.HandleFunc("GET /slow", slow)
	mux.HandleFunc("GET /stream", stream)
	mux.HandleFunc("POST /echo", echo)
	return mux
}

// slow answers after the time d.
func slow(w http.ResponseWriter, r *http.Request) {
	d, ok := timeOf(w, r)
	if !ok {
		return
	}
	select {
	case <-time.After(d):
		fmt.Fprintf(w, "waited %v\n", d)
	case <-r.Context().Done():
	}
}

// stream sends a line at once, one each 100 ms, and a last one after the time d.
func stream(w http.ResponseWriter, r *http.Request) {
	d, ok := timeOf(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	flusher := http.NewResponseController(w)
	end := time.After(d)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for line := 1; ; line++ {
		fmt.Fprintf(w, "line %d\n", line)
		if flusher.Flush() != nil {
			return // the client has left
		}
		select {
		case <-tick.C:
		case <-end:
			fmt.Fprintln(w, "end")
			return
		case <-r.Context().Done():
			return
		}
	}
}

// timeOf is the query's d. If it is none, the request is answered with the reason.
func timeOf(w http.ResponseWriter, r *http.Request) (d time.Duration, ok bool) {
	d, err := time.ParseDuration(r.URL.Query().Get("d"))
	if err != nil || d < 0 || d > maxTime {
		http.Error(w, fmt.Sprintf("want ?d= and a time from 0s to %v, like 1.5s", maxTime), http.StatusBadRequest)
		return 0, false
	}
	return d, true
}

// echo sends the body back while it arrives, in bounded memory however long it is.
func echo(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	// HTTP/1 reads the rest of a request before it answers unless told otherwise. HTTP/2 has nothing to be told.
	if err := control.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			if control.Flush() != nil {
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			// Half a body came. An end in good order would make the echo look whole.
			panic(http.ErrAbortHandler)
		}
	}
}
