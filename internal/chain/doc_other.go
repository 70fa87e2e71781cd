//go:build !unix

// Package chain is for tests of whole programs that replace themselves, which they do on Unix.
package chain
