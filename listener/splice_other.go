//go:build !linux

package listener

// splicer is a way to copy in the kernel. There is none here.
type splicer struct{}

func (*splicer) init(*way, stream, stream)     {}
func (*splicer) able() bool                    { return false }
func (*splicer) fill() error                   { return nil }
func (*splicer) flush() error                  { return nil }
func (*splicer) discard()                      {}
func (*splicer) reclaim(pending []byte) []byte { return pending }
