package handoff

import "fmt"

// MaxTotals is how many totals one Counted may have. More go into further ones.
const MaxTotals = MaxEntries

// Counted tells what a predecessor that drains has counted so far. It needs CapabilityCounters.
type Counted struct {
	Totals []Total `cbor:"1,keyasint,omitempty"`
}

// Total is the value of a counter in the predecessor, its own predecessors' share included. A later one of the same name is
// not less.
type Total struct {
	Name  string `cbor:"1,keyasint"`
	Value uint64 `cbor:"2,keyasint"`
}

func (c *Counted) check() error {
	if len(c.Totals) > MaxTotals {
		return fmt.Errorf("%w: %d totals, at most %d", ErrMalformed, len(c.Totals), MaxTotals)
	}
	for _, total := range c.Totals {
		if len(total.Name) == 0 || len(total.Name) > MaxName {
			return fmt.Errorf("%w: total of a counter with a name of %d bytes, want 1 to %d", ErrMalformed, len(total.Name), MaxName)
		}
	}
	return nil
}
