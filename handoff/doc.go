// Package handoff is the protocol by which one process passes descriptors to another over a stream Unix socket: frames,
// one-time tokens, typed failures, the decision to fall back to reconnect. Package restart uses it to upgrade a server; it
// knows nothing of servers itself. It is of use alone, too, for a broker: a front that accepts connections (Pool) and hands each to a backend
// (Backend), which serves it from then on.
//
// # Who should not use it
//
// To start a new generation of the same program use package restart. To pass one descriptor to a child that you start,
// os/exec's ExtraFiles is enough. To send connections to processes that can as well be reached by address, use a proxy: a
// handoff saves its copying, and costs that both sides run on one machine, as one user or as two that trust each other.
//
// # On the wire
//
// A frame is a big-endian u32 (bytes of the body), a u8 (type), and a body: a CBOR map with integer keys (RFC 8949). A
// body has 1 MiB at most, and 4 KiB at most before the peer has shown its token. Once its first byte came, a frame must
// be complete within 5 s.
//
// An OFFER that counts descriptors is followed by 16 bytes, the token that it announced, with exactly that many
// descriptors attached to the first of them (SCM_RIGHTS, unix(7)): one for each entry that has key 7, in their order.
// Descriptors anywhere else, more, fewer, or cut by the kernel (MSG_CTRUNC) end the session, and all are closed. The frame and the token may be one
// sendmsg(2), with the descriptors attached to its first byte, in a broker's session; a receiver cannot tell the difference.
//
//	type  message    from         body
//	  1   HELLO      successor    1 version, 2 capabilities, 3 token, 4 pid
//	  2   WELCOME    predecessor  1 version, 2 capabilities, 3 generation, 5 pid,
//	                              4 limits {1 body bytes, 2 descriptors, 3 credit}
//	  3   REFUSE     predecessor  1 reason, 2 detail
//	  4   OFFER      predecessor  1 id, 2 token, 3 count, 4 entries, 5 more, 6 correlation id, 7 relay
//	                              entry {1 id, 2 kind, 3 name, 4 network, 5 address, 6 data, 7 has a descriptor,
//	                                     8 bytes of the whole value, 9 where in it data begins}
//	  5   ACK        successor    1 offer id, 2 results {1 entry id, 2 accepted, 3 reason, 4 detail}, 3 credit,
//	                              4 token, 5 correlation id
//	  6   GRANT      predecessor  1 offer ids
//	  7   READY      successor    1 probation in ms, 2 credit
//	  8   PING       predecessor  1 number
//	  9   PONG       successor    1 number, 2 credit
//	 10   COMMIT     successor    –
//	 11   COMMITTED  predecessor  –
//	 12   ROLLBACK   either       1 reason, 2 detail
//	 13   BYE        predecessor  1 an upgrade was asked for, 2 a stop was
//	 14   COUNTED    predecessor  1 totals {1 name, 2 value}
//	 15   ANNOUNCE   front        1 token, 2 correlation id
//	 16   RELAY      who serves   1 token, 2 it is the backend, 3 reason, 4 correlation id
//
// An upgrade in version 1:
//
//	successor                predecessor
//	HELLO                →
//	                     ←   WELCOME, or REFUSE
//	                     ←   OFFER of listeners, packet sockets, files, state, counters, ledger   repeated while it says more
//	ACK                  →
//	… the application starts …
//	READY                →
//	                     ←   PING
//	PONG                 →   the predecessor stops accepting
//	                     ←   GRANT of nothing: the successor may accept
//	… probation: PING and PONG go on …
//	                     ←   OFFER of connections, 253 at most, four of them unanswered at most, all within the credit
//	ACK                  →
//	                     ←   COUNTED, when it has counted on: before each GRANT, after the commit now and then, last before BYE
//	                     ←   GRANT of that offer: from here the successor reads and writes them, and keeps the ledger
//	… this repeats as connections come between two requests …
//	COMMIT               →   the predecessor decides
//	                     ←   COMMITTED, or ROLLBACK
//	                     ←   GRANT of nothing: nothing is taken back any more, the ledger is of no use
//	… the predecessor drains; OFFER, ACK and GRANT go on …
//	                     ←   ROLLBACK, after the commit: what was not granted stays the predecessor's
//	                     ←   BYE
//
// Versions: HELLO names the newest that the successor speaks, WELCOME the one that both do. Unknown keys and unknown
// capabilities are skipped, unknown types end the session. A predecessor that is alive never closes the session without
// ROLLBACK or BYE: to the successor, the end of the stream means its death, and what it has acknowledged is its own.
//
// Capabilities of version 1 are "listeners", "packets", "files", "state", "connections", and, which the first peers did not
// have, "parts", "counters" and "escrow". A side sends only what both have. "broker" is that of the other kind of session, below.
//
// Kinds of entries are "listener", "packet", "file", "state", "counter" and "ledger" before READY, and "connection" after the
// first GRANT, or, without "escrow", after COMMITTED. The data of a connection is a CBOR map of package restart's
// (connection.go): what was read ahead, what is left of its idle time, socket options, its slot in the ledger. The data of a counter is
// its value, as 8 bytes, big-endian.
//
// After COMMITTED there are "raw" entries as well, of connections that a protocol of the user's hands on: the name is that protocol's word for
// them, and the map (party.go) has its state and the name of the connection's listener, too. Entries of kind "beside" that follow a
// "raw" one are connections that travel with it. They are in the same offer, and are accepted or refused all together.
//
// # Connections on probation
//
// With "escrow" connections move before the commit, and can be taken back. The predecessor keeps a descriptor of each that it has
// granted, and touches it only when the successor is dead: killed, and waited for. What the successor has done with it
// stands in the ledger, an array of 32-bit words, in the byte order of the machine, in a sealed memfd; a connection's slot counts from 1.
// Bits 0 to 3 of a word are 0 as long as the successor has not touched the connection, 1 from before it first takes bytes on, and 2 when
// it is between two requests again; then bits 4 to 7 are how many bytes of the next request it has taken nevertheless,
// three at most, and the upper three bytes are those. What is not 0 or 2 then is closed.
//
// Credit is for how many connections the successor has room, beside those that it has acknowledged, and in a PONG beside
// those that it has been offered: it knows its limit of descriptors. What there is no credit for stays with the predecessor.
//
// A predecessor that hears nothing from a granted successor accepts again itself before it gives it up, and a successor that is ready
// and hears nothing accepts: a connection in the queue of a shared socket goes to one process, so that does no harm. What was acknowledged
// and not granted is the predecessor's, but for when it is dead.
//
// A state of more than 512 KiB comes in parts ("parts"): entries of one name and one key 8, in their order, key 9 counting
// what came before, with no other state between them, in as many offers as it takes. What contradicts that, or is not
// whole when an offer comes without key 5, ends the session.
//
// COUNTED ("counters") has totals, not differences: the value of each counter in the predecessor, if it changed since
// it was last told. The successor adds what is new to its own.
//
// # A broker
//
// In a session with "broker" no generation leaves. The front, which dials, is in the place of the predecessor, and the backend, which
// listens, in that of the successor, but that it is the front that says HELLO, without token: each side looks at the other's uid.
//
//	front                    backend
//	HELLO                →
//	                     ←   WELCOME, or REFUSE
//	OFFER of one connection →   many may be under way, within the credit
//	                     ←   ACK: from here the backend reads and writes it; acks come in any order
//	PING                 →   when there is no credit
//	                     ←   PONG
//	                     ←   BYE: no more offers are taken here, and what was not acknowledged is to be offered anew
//
// An OFFER has one entry, of kind "connection", whose name is the service that it is for. The ACK echoes its token and its correlation id.
// Credit is for how many connections the backend has room, those that are offered and not acknowledged included. A PONG is awaited no longer than an ACK.
//
// There is no GRANT, so that the client does not wait for it. The ack itself is the moment at which the connection changes hands: it is the backend's once the
// whole frame is in the front's receive queue, and a backend that cannot send it closes its descriptor without a word. A front that loses patience
// closes its side for reading (shutdown(2)), after which no ack can be sent, reads what is in the queue, and then both sides know the same. So an ack that is
// late fails at the backend, and what a backend that is killed had not acknowledged was not read by it. Where shutdown drops what is in the queue
// (everywhere but on Linux), a connection of which that leaves doubts has Reached the peer, and is closed.
//
// A client can be told that another process serves it, if it waits for that (Dialer): the front sends it ANNOUNCE with the token of the offer, on the client's
// own connection, and the backend sends RELAY with the same token there, its first bytes. Without that, or in time, the client
// reconnects. A front that has found no backend sends RELAY without key 2.
//
// # The bare form
//
// One attempt is one sendmsg(2) of exactly 16 bytes, the token, with exactly one descriptor attached (SCM_RIGHTS), and
// nothing else: no frame, no answer. Each attempt has a connection of its own, which its sender closes (DialBare), or
// several follow one another on one connection (SendBare). ReceiveBare is the other side of both. It is what programs in
// other languages can speak in a few lines, and what a broker speaks that only hands out. Because nothing answers, a sender
// learns only that the kernel took the descriptor; who must know more uses a Pool. A Backend that leaves closes its side for reading, so that a later
// sendmsg fails, and serves what is queued; where shutdown would drop that (see above), it only does the latter.
//
// # Failures
//
// A handoff that fails is no error of the client's: it is served by reconnect, by the process that still holds the
// connection. The exception is a connection that Reached a peer which may still adopt it: that is closed, because no owner
// is better than two.
//
// Whatever went wrong is first a sentinel error, in a Failure if it happened on the way; Classify says what it tells about
// the peer, FallbackFor why there is a reconnect, and a Policy stops attempts for a peer that fails too often.
//
//	error                                                        Class               Fallback
//	ErrPermission                                                permission denied   permission denied
//	ErrTokenMismatch, all of a token, ErrRefused, broken frames  integrity mismatch  integrity mismatch
//	ErrUnavailable, ErrWouldBlock, ErrSendFailed, ErrAckTimeout  ack timeout         ack timeout
//	ErrDescriptorPressure                                        –                   descriptor pressure
//	ErrUnsupported, ErrPolicy                                    –                   service policy disabled
//
// A RefusedError goes by its Reason. The remaining fallbacks, and the time to retry, come from Policy.Decide.
//
// An offer whose ack must come is held in an AckRegistry, one that cannot be sent yet in a PendingQueue. A Pool has both.
//
// # Tokens
//
// A Token is 128 bits from the operating system, used once, compared in constant time, never printed. A TokenStore holds
// those that may still be used.
package handoff
