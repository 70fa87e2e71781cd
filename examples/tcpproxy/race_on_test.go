//go:build unix && race

package main

// slowdown is by how much the race detector makes a load of many clients too much for the machine.
const slowdown = 5
