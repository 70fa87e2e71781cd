// Package broker has no code of its own: front accepts connections and hands them to backends, which serve HTTP on them. Its tests run both
// programs as processes.
package broker
