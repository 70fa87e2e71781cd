// Package bench compares a server under Segue, when nothing is being upgraded, with the same server on plain net/http:
// requests per second, processor time and allocations per request, memory per connection, system calls. It has no code of its own.
//
// Each server is a process of its own (server_test.go), a role of the test binary; the clients (client_test.go) are in
// the benchmark's. The two servers take turns of a fraction of a second, so that whatever else the machine does hits both,
// and each pair of turns gives one ratio. What is reported is the median of the ratios, Segue's figure divided by net/http's, and
// between which values the middle half of them lies. Time is measured by benchmarks only; what does not depend on the machine's
// load (allocations, memory, system calls) has tests.
//
//	go test -run '^$' -bench . -benchtime 200x ./internal/bench
//
// BenchmarkHandoff compares what a client of examples/broker waits for: -benchtime 5000x.
//
// BenchmarkIdle holds 30 000 descriptors in two processes for each iteration: -benchtime 3x is enough for it.
//
// Linux only.
package bench
