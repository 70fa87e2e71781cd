package restart

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// What the process opens besides, nobody tells the budget: it has to look again, and not so often that it is felt.
func TestCreditIsNotOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, reserve = 65536, 65536 / reserveShare
		open, measured := 100, 0
		var takes time.Duration
		var failure error
		b := budget{measure: func() (int, int, error) {
			measured++
			time.Sleep(takes)
			return limit, open, failure
		}}
		check := func(moment string, want, wantMeasured int) {
			t.Helper()
			if have := int(b.credit()); want != have || wantMeasured != measured {
				t.Errorf("%s: want %d, measured %d times; have %d, %d", moment, want, wantMeasured, have, measured)
			}
		}
		free := limit - reserve - open
		check("first", free, 1)
		b.take(10)
		time.Sleep(measureEvery)
		check("some taken", free-10, 1)
		open = limit - reserve - 5000
		time.Sleep(time.Nanosecond)
		check("many opened by others", 5000, 2)
		open = 100
		takes = 20 * time.Millisecond
		time.Sleep(measureEvery)
		time.Sleep(time.Nanosecond)
		check("and closed again", free, 3)
		time.Sleep(measureShare * takes)
		check("to measure takes long", free, 3)
		open = limit
		time.Sleep(time.Nanosecond)
		check("none left", 0, 4)
		check("and looked again at once", 0, 5)
		failure = errors.ErrUnsupported
		check("not known", 0, 6)
	})
}

func TestDescriptorsAreCounted(t *testing.T) {
	_, before, err := measureDescriptors()
	if err != nil {
		t.Skip(err)
	}
	const n = 100
	for range n {
		file, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
	}
	limit, after, err := measureDescriptors()
	if have := after - before; err != nil || have < n/2 || have > 2*n || limit < after { // other tests may leave some to be closed
		t.Errorf("%d were opened: have %d more, of %d, %v", n, have, limit, err)
	}
}
