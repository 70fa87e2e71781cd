package listener

import "os"

// claim makes the inner socket of a member: from the descriptor of an heirloom, or else anew.
func claim[T any](h *heirloom, fresh func() (T, error), fromFile func(*os.File) (T, error)) (T, error) {
	if h == nil {
		return fresh()
	}
	// fromFile, net.FileListener for instance, calls Fd. On a file that package net or os made non-blocking itself, Fd makes the shared
	// description blocking, and with it the socket of the process at the other side. It does not for a file that os.NewFile
	// made from a descriptor that is non-blocking already (os/file_unix.go: newFile), so it gets one of those.
	f, err := dupNonblock(h.File, h.Name)
	if err != nil {
		var none T
		return none, err
	}
	defer f.Close() // fromFile has made a duplicate of its own
	return fromFile(f)
}
