package handoff

// fenceKeeps says whether what has arrived on a Unix socket before shutdown(SHUT_RD) can still be read after it. On Linux the peer's
// sendmsg either puts its bytes into the queue before, or fails with EPIPE (net/unix/af_unix.c: both hold the lock of the socket's
// state), so that after the queue is read to its end both sides know the same acks.
const fenceKeeps = true
