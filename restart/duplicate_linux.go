package restart

import "golang.org/x/sys/unix"

// duplicateTo makes to refer to what from does, close-on-exec, in one step.
func duplicateTo(from, to int) error { return unix.Dup3(from, to, unix.O_CLOEXEC) }
