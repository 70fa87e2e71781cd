package scm

// scmPidfd is a control message of Linux only: no message has this type.
const scmPidfd = -1
