//go:build linux && !race

package broker

const raceEnabled = false
