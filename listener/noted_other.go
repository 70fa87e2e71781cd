//go:build !linux

package listener

import "github.com/segue-go/segue/internal/ledger"

// readNoted is never called: there are no ledgers on this platform.
func readNoted(inner stream, slot *ledger.Slot, p []byte) (int, error) {
	slot.Use()
	return inner.Read(p)
}
