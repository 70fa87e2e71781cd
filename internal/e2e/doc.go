// Package e2e holds the process tests: real generations, real sockets, real signals. It has no code of its own.
//
// They need Linux: /proc, pidfds, a subreaper.
//
// TestMain (main_test.go) makes the test binary a program of several roles: a service (service_test.go) that the tests
// start and upgrade, and the bad successors (impostor_test.go) that they put in its binary's place. harness_test.go is
// the test's side of it: it follows what the generations log, and counts in /proc what they leave behind.
package e2e
