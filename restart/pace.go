package restart

import (
	"math"
	"time"
)

// pace spreads the asking of connections over time: Options.Spread. With its zero value all may be asked at once.
type pace struct {
	until time.Time // when all may have been asked
	from  time.Time // when conns were there
	conns int
	asked int // since from
}

// by has all be asked until then, unless it is to be sooner already.
func (p *pace) by(until time.Time) {
	if p.until.IsZero() || until.Before(p.until) {
		p.until = until
	}
}

// start is the beginning, or another one after connections were let go again: there are so many that were not asked.
func (p *pace) start(now time.Time, conns int) { p.from, p.conns, p.asked = now, conns, 0 }

// room is how many more may be asked by now.
func (p *pace) room(now time.Time) int {
	if !now.Before(p.until) {
		return math.MaxInt
	}
	passed := float64(now.Sub(p.from)) / float64(p.until.Sub(p.from))
	return 1 + int(float64(p.conns)*passed) - p.asked
}
