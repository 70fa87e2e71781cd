//go:build unix && !race

package main

const slowdown = 1
