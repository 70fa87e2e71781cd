//go:build unix

package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// fakeVariable makes the test binary a server that does one thing wrong.
const fakeVariable = "SEGUE_DEMO_FAKE"

func TestMain(m *testing.M) {
	if fault := os.Getenv(fakeVariable); fault != "" {
		if err := fake(fault); err != nil {
			fmt.Fprintln(os.Stderr, "fake:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fake serves like examples/httpserver. A successor inherits its socket as file 3 and is generation 2.
func fake(fault string) error {
	addr := flag.String("addr", "", "")
	pidFile := flag.String("pidfile", "", "")
	flag.Duration("probation", 0, "")
	flag.Duration("drain", 0, "")
	flag.Parse()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	number := 1
	ln, err := net.FileListener(os.NewFile(3, "inherited"))
	if err == nil {
		number = 2
	} else if ln, err = net.Listen("tcp", *addr); err != nil {
		return err
	}
	if fault == "dead at start" {
		return fmt.Errorf("deliberately dead")
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault == "failing" {
			http.Error(w, "deliberately", http.StatusInternalServerError)
			return
		}
		if fault == "modest" && number == 2 {
			fmt.Fprintln(w, "hello")
			return
		}
		fmt.Fprintf(w, "generation %d pid %d\n", number, os.Getpid())
	})}
	go srv.Serve(ln)
	fmt.Fprintf(os.Stderr, "msg=listening pid=%d addr=%s generation=%d\n", os.Getpid(), ln.Addr(), number)
	if fault != "silent at start" {
		if err := os.WriteFile(*pidFile, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
			return err
		}
	}
	for received := range signals {
		switch {
		case fault == "stubborn", received == syscall.SIGHUP && (fault == "deaf" || fault == "silent at start"):
			continue
		case received == syscall.SIGTERM:
			return nil
		case fault == "mortal":
			return fmt.Errorf("deliberately dying")
		}
		file, err := ln.(*net.TCPListener).File()
		if err != nil {
			return err
		}
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{file}
		if err := cmd.Start(); err != nil {
			return err
		}
		// Long enough for the successor; what is lost then is lost.
		time.Sleep(200 * time.Millisecond)
		return srv.Close()
	}
	return nil
}
