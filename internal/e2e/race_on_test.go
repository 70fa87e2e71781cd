//go:build linux && race

package e2e

// slowdown is by how much the race detector makes a load of many clients too much for the machine.
const slowdown = 10
