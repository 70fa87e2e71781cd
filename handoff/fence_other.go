//go:build !linux

package handoff

// fenceKeeps: the BSDs drop what has arrived, and so what the peer has acknowledged and this side has not read is not known.
const fenceKeeps = false
