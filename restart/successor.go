package restart

import (
	"context"
	"time"

	"github.com/segue-go/segue/handoff"
)

const byeTimeout = time.Second

// successor is the link to the generation that took over, as long as this one drains.
type successor struct {
	session     *handoff.Session
	incoming    <-chan received
	stopReading context.CancelFunc
	mover       *mover    // nil if it takes no connections
	counting    *counting // nil if it has no counters
	startedHere bool      // by this process
}

// bye tells that this generation has gone, and whether it was asked for an upgrade that it could not serve any more.
func (s *successor) bye(upgrade bool) {
	s.counting.finish()
	s.say(&handoff.Bye{Upgrade: upgrade})
	s.stopReading()
	_ = s.session.Close()
}

// stop passes a stop signal on that was for the service, and came when this generation had just handed over. What is on its way then stays here: to the successor,
// BYE says so.
func (s *successor) stop() {
	s.mover.abandon()
	s.counting.tell(byeTimeout) // it listens no longer then
	s.say(&handoff.Bye{Stop: true})
}

// abandon is run for a generation that stops: nothing moves any more.
func (m *mover) abandon() {
	if m == nil {
		return
	}
	defer close(m.done)
	if m.escrow != nil {
		m.escrow.close()
		m.escrow = nil
	}
	m.finish(errStopped)
}

func (s *successor) say(bye *handoff.Bye) {
	ctx, cancel := context.WithTimeout(context.Background(), byeTimeout)
	defer cancel()
	_ = s.session.Send(ctx, bye) // EOF tells that this generation has gone as well
}
