package listener

// onePerRead is how many bytes of a request are delivered one by one at most.
const onePerRead = 4 * serverBuffer

// A server reads as much as its buffer holds. If a client keeps enough requests in flight, what is read ends in the middle of one
// each time, and the connection never comes to a boundary with an empty buffer: it could not move before the drain's deadline,
// which would cut it. So, once somebody wants the connection, a request of which the server had a part before it answered the one
// before is delivered one byte per Read from there. Then its last byte is the last in the buffer, and the boundary after it is one. That
// costs a system call for each byte of the rest of one request, once in the life of a connection that moves, and is given up
// for a request that is too large.

// pace is called before a Read, with mu held. A Read in the middle of a request, of which nothing was delivered since MarkIdle, is
// one for a request that began in the server's buffer.
func (b *boundary) pace() {
	if b.ahead && !b.at && b.sink != nil {
		b.ahead = false
		b.slow.Store(onePerRead)
	}
}

// paced shortens the slice for a Read if need be.
func (b *boundary) paced(p []byte) []byte {
	if len(p) > 1 && b.slow.Load() > 0 {
		b.slow.Add(-1)
		return p[:1]
	}
	return p
}
