package restart

import (
	"testing"

	"github.com/segue-go/segue/listener"
)

// One that cannot be had now is not asked again at once: as long as no descriptor is free, none can be had, and to ask all the time
// would keep a processor busy.
func TestWhatStaysIsNotAskedAgainAtOnce(t *testing.T) {
	q := newDepartures()
	q.setOpen(true)
	q.asked = 2
	if !q.put(moving{}, true) {
		t.Error("want an answer that is no to be taken")
	}
	select {
	case <-q.wake:
		t.Error("the mover was woken though nothing came")
	default:
	}
	if !q.put(moving{Detached: &listener.Detached{}}, true) {
		t.Error("want a connection to be taken")
	}
	select {
	case <-q.wake:
	default:
		t.Error("the mover was not woken for a connection")
	}
	if coming, underWay := q.count(); coming != 1 || underWay != 0 {
		t.Errorf("want one in the queue and none asked, have %d and %d", coming, underWay)
	}
}
