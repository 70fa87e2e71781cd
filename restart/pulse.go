package restart

import (
	"context"
	"fmt"
	"time"

	"github.com/segue-go/segue/handoff"
)

// doubtAfter is the part of PingTimeout after which an answer is so late that somebody else had better accept: in hundredths.
const doubtAfter = 40

// pulse asks a successor in probation again and again whether it is alive. One goroutine uses it.
type pulse struct {
	session           *handoff.Session
	interval, timeout time.Duration

	timer   *time.Timer // when something is due
	number  uint64      // of the last PING
	sent    time.Time   // when
	waiting bool        // for its answer
	excused bool        // this process has slept: the timeout began anew, once
}

// newPulse sends the first PING.
func (a *attempt) newPulse(ctx context.Context) (*pulse, error) {
	p := &pulse{session: a.session, interval: a.options.PingInterval, timeout: a.options.PingTimeout, timer: time.NewTimer(0)}
	return p, p.ping(ctx)
}

func (p *pulse) stop() { p.timer.Stop() }

func (p *pulse) ping(ctx context.Context) error {
	p.number++
	p.sent, p.waiting, p.excused = time.Now(), true, false
	p.timer.Reset(p.doubt())
	return p.session.Send(ctx, &handoff.Ping{Number: p.number})
}

func (p *pulse) doubt() time.Duration { return p.timeout * doubtAfter / 100 }

// answered notes a PONG.
func (p *pulse) answered(pong *handoff.Pong) error {
	if !p.waiting || pong.Number != p.number {
		return fmt.Errorf("%w: PONG %d", handoff.ErrUnexpectedMessage, pong.Number)
	}
	p.waiting = false
	p.timer.Reset(max(p.interval-time.Since(p.sent), 0))
	return nil
}

// beat does what is due when the timer fires: the next PING, or doubt, or the end.
func (p *pulse) beat(ctx context.Context, now time.Time) (doubtful bool, err error) {
	if !p.waiting {
		return false, p.ping(ctx)
	}
	late := now.Sub(p.sent)
	switch {
	case late < p.timeout:
		p.timer.Reset(p.timeout - late)
		return true, nil
	case late > p.timeout+p.timeout/2 && !p.excused:
		// The timer itself is late: this process was stopped, or starved. The answer may long be there, unread.
		p.excused = true
		p.sent = now
		p.timer.Reset(p.timeout)
		return false, nil
	default:
		return true, fmt.Errorf("%w: within %v", ErrPingTimeout, p.timeout)
	}
}
