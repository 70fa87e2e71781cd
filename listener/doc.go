// Package listener keeps sockets that outlive a process.
//
// A [Set] holds a program's listening sockets, packet sockets and files, each under a name. Listen opens a socket, unless
// this process has inherited one of that name: then it returns the inherited one. Which of the two happened makes no
// difference to the program:
//
//	var set listener.Set
//	// set.Inherit(...) for each socket that a predecessor sent
//	web, err := set.Listen(ctx, "web", "tcp", ":8080")
//	set.CloseUnclaimed()
//	err = srv.Serve(web)
//
// # Handing over
//
// [Set.Sockets] duplicates everything the Set holds, for a successor that calls [Set.Inherit] with each. How the
// descriptors travel is not this package's business; package restart of this module sends them over a Unix socket.
// Both processes then hold the same socket in the kernel (one open file description, one queue of waiting connections),
// which has three consequences that shape this package:
//
//   - A socket of a Set is never made blocking, because O_NONBLOCK belongs to the description that both share.
//     The methods of package net and os that do so (File, Fd) are not used. Do not call them on what NetConn returns either.
//   - Closing is local. The kernel keeps the socket, and what waits in its queue, until the last process has closed it.
//   - A process that must not take connections says so by not asking for them. [Listener.Pause] and [Set.Pause] do that:
//     whatever arrives meanwhile stays in the kernel, for the other process or for Resume.
//
// # Is it the socket that was asked for?
//
// It is checked twice. Inherit checks the descriptor against its description: the type and state of the socket, its family
// and its bound address; what does not hold is refused with [ErrIdentity]. Listen checks the inherited socket against what
// is asked for now. Port 0 (and the empty name of a Unix socket) fits whatever the kernel chose then, so a port that
// was chosen once stays the same over all generations; a host name fits each address it resolves to; an unspecified host ("",
// "0.0.0.0", "::") fits an unspecified address. Both protocol versions or one of them is a difference: "tcp6" does not
// fit a socket that takes IPv4 too.
//
// If the socket does not fit, the configuration has changed from one generation to the next. Then Listen binds a fresh socket
// and logs one line with both addresses. The inherited one stays unclaimed, and [Set.CloseUnclaimed] closes it. Note that
// the predecessor still holds the old socket, so a fresh one that overlaps it (the same port as "tcp4" instead of "tcp")
// cannot be bound without SO_REUSEPORT: that error says so.
//
// # Connections that move
//
// A connection can leave its server between two requests, and join another one, in another process, without its client noticing:
// [Listener.Detach] takes connections out, [Listener.Adopt] puts one in, as if it had just been accepted. The server says when it
// is between two requests ([Conn.MarkFresh], [Conn.MarkIdle]; net/http says so to its ConnState hook), and Conn decides by what
// is read from then on whether it still is. One that waits for its client is woken by a read deadline in the past. What the
// server has read of a next request, three bytes at most, travels along. What the client sends in that very instant stays in the
// kernel for the next reader, or is served here, and the connection leaves at its next boundary.
//
// A protocol of the user's own decides itself where its boundary is. Its handler is woken by [Conn.Interrupt], gives back what it has read
// and not consumed with [Conn.Unread], and takes the connection out with [DetachConns]; the next process goes on with what
// [Listener.AdoptConn] returns, or that of [Strays] for a connection that no listener of its accepted.
//
// A [Relay] copies between two connections and has no boundary: it can be stopped anywhere. What it has read and not written is given back with
// Unread, and so travels with the connection that it was read from.
//
// # Unix sockets
//
// The file of a Unix socket is not removed when a Listener is closed, but by [Set.Close], which only the last generation calls,
// and only if the file is still the one that was bound. A generation with a successor calls [Set.Leave].
// Relative paths are made absolute when the socket is opened. The file of a dead process is removed when its path is bound again.
//
// # Who should not use it
//
// A program that systemd or another supervisor starts with its sockets, and that may drop its connections when it is replaced,
// needs nothing but net.FileListener. A program that is replaced by another machine's copy (behind a load balancer) needs
// none of this. And on Windows, where descriptors cannot be handed over this way, a Set only opens sockets; Sockets and Inherit answer
// [errors.ErrUnsupported].
package listener
