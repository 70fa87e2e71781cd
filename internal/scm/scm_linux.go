package scm

import "golang.org/x/sys/unix"

// scmPidfd is the one other control message that carries a descriptor. It comes if SO_PASSPIDFD is set on our socket.
const scmPidfd = unix.SCM_PIDFD
