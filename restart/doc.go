// Package restart lets a server replace itself without its clients noticing. A process, a generation, hands its listening
// sockets to its successor, keeps a way back until the successor has proved itself, and then hands over its live connections.
//
//	srv := &http.Server{Addr: ":8080", Handler: handler}
//	err := restart.ListenAndServe(srv) // SIGHUP upgrades, SIGTERM drains
//
// Or, with everything:
//
//	gen, err := restart.New(restart.Options{PIDFile: "/run/app.pid", Healthy: checkDatabase})
//	ln, err := gen.Listen(ctx, "web", "tcp", ":8080") // inherited by its name, or opened
//	gen.HTTP(ln, srv)
//	gen.Conns(raw, handler)    // a protocol of its own: handler hands its connections on, with their state
//	gen.Adopt("chat", goOn)    // and its successor goes on with them
//	gen.Add(worker.Run, worker.Stop)
//	err = gen.Run(ctx) // returns when this generation's work is done
//
// # An upgrade
//
// SIGHUP, or Generation.Upgrade, has tableflip start the program that os.Args[0] names now, with the same arguments,
// environment and directory. The new process says HELLO over a socket that it inherited, with a token that it
// inherited, and is offered what this one has. When its Run is reached it is ready; from then on, on probation, it
// accepts, and its predecessor does not. HTTP/1 connections move to it, each as soon as it is between two requests. When it asks for
// the commit after its Options.Probation, the predecessor decides, and leaves: what has not moved yet does when it can, what
// cannot move is drained, and Run returns. Package handoff describes each message.
//
// With Options.Socket a process that something else started can take over the same way, in place of being the first.
//
// What became of it is a Report: Upgrade returns it, Options.Observer is told, and it is a line of the log ("upgraded", or "upgrade
// failed").
//
// # Connections of other protocols
//
// Where a connection can change hands, and what has to be known of it then, only its protocol knows. So its handler is told, by a context
// that ends, that the generation leaves, and calls Generation.Detach with the connection and some bytes of state; in the successor, the
// function that Generation.Adopt has for that kind goes on. This is for connections that Generation.Conns serves, for those that were
// hijacked from net/http (Hijack), and for those that the process has dialed itself (Generation.Own). Several can travel as one: both
// sides of a relay, all members of a room. They move after the commit only; until then the predecessor serves them on. What the successor does not
// take comes back to the predecessor's function of the same kind, to be drained. Examples/websocket is a chat made of this.
//
// A proxy need not care for where that is: Generation.Relays passes the bytes of two connections on to one another, and moves both of them
// as they are. Examples/tcpproxy and examples/httpproxy are made of it.
//
// # What can go wrong
//
// Until the commit, any failure of the successor has the predecessor kill it, wait until it is dead, accept again, and serve on the
// connections that had moved and that the successor has left between two requests; Upgrade returns a typed error. The death of the
// predecessor, at any moment after the successor was offered the sockets, makes the successor serve. At no moment do both
// believe that the other one serves: the commit is decided by the predecessor alone, and a predecessor that is alive never closes
// the session without ROLLBACK or BYE. One that merely hears nothing from the other accepts beside it, until it knows.
//
// # Who should not use it
//
// A program whose connections are all short and that may refuse some for a second: http.Server.Shutdown is simpler. And
// a program that cannot run twice at the same time for a moment: during probation both generations' actors run.
//
// # How the files are cut
//
// generation.go and run.go are the life of a generation. upgrade.go is the one goroutine that upgrades, attempt.go and
// rollback.go are one upgrade seen from the predecessor; candidate.go is the process it is about, of which there are two
// kinds (offspring.go, visitor.go and takeover.go). predecessor.go and probation.go are the same upgrade seen from the
// successor; pulse.go is how the one knows that the other is alive. move.go and adopt.go are the two sides of connections that
// move: departures.go is the queue of those that left their server, batch.go an offer of some of them, escrow.go what is kept of those that were granted, budget.go for
// how many there is room, tally.go and pauses.go what became of them, and connection.go what travels with one. conns.go
// and party.go are those of other protocols than net/http's, relays.go pairs that are relayed, handoffs.go takes in what brokers hand over. report.go is what
// became of the upgrade, observer.go who is told. spawn.go, slot_unix.go and inherited_unix.go deal with tableflip, fence_linux.go
// with making sure that a process is dead.
package restart
