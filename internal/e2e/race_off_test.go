//go:build linux && !race

package e2e

const slowdown = 1
