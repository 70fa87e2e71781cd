package handoff

import (
	"fmt"
	"sync"
	"time"
)

const (
	// DefaultFailures is how many attempts may fail for one peer within DefaultFailureWindow.
	DefaultFailures = 8
	// DefaultFailureWindow is the time in which failed attempts are counted.
	DefaultFailureWindow = 30 * time.Second
	// DefaultPeers is how many peers a Policy remembers failures of.
	DefaultPeers = 1024

	mostFailures = 1024
)

// Policy decides for each connection whether a handoff is tried at all, or its client served by reconnect at once. It
// knows peers by names of the caller's choice: one for each backend of a broker, the same for all of an upgrade.
//
// A peer that fails too often gets no more attempts until its failures are old, so that whoever has much to hand over is
// not stalled by one peer that is broken. The zero value is ready to use; set the fields before the first call. Safe for
// concurrent use.
type Policy struct {
	// Failures is how many attempts may fail for one peer within Window; 0 and less mean DefaultFailures, more than 1024
	// mean 1024.
	Failures int
	// Window is the time in which failed attempts are counted; 0 and less mean DefaultFailureWindow.
	Window time.Duration
	// Peers is how many peers with failures are remembered; 0 and less mean DefaultPeers. Of one more, the one that has not
	// failed for the longest time is forgotten, as if it never had.
	Peers int
	// Now tells the time; nil means time.Now.
	Now func() time.Time

	mu     sync.Mutex
	failed map[string]*failureWindow
}

// Conditions are what the caller knows about one connection and its peer that speaks against a handoff. Its zero value
// says that nothing does.
type Conditions struct {
	ClientUnsupported  bool // the client cannot be served by another process on the same connection
	Disabled           bool // the service does not want it
	DescriptorPressure bool // this process or the peer is short of descriptors
	AdoptedBackend     bool // the peer was not started by this process, which cannot pass anything to it
}

// Decision is what to do with one connection. Its zero value is to hand it over.
type Decision struct {
	// Fallback is why its client is served by reconnect; "" means that it is not.
	Fallback Fallback
	// RetryAfter is when attempts for this peer are made again, with FallbackRateLimited.
	RetryAfter time.Duration
}

// Reconnect reports whether the client is served by reconnect.
func (d Decision) Reconnect() bool { return d.Fallback != "" }

// Err is the decision as an error, nil for a handoff: ErrPolicy, of which FallbackFor still knows the Fallback.
func (d Decision) Err() error {
	if !d.Reconnect() {
		return nil
	}
	return &declined{d}
}

// declined is a Decision where an error is asked for.
type declined struct{ decision Decision }

func (d *declined) Error() string {
	text := fmt.Sprintf("%v: %s", ErrPolicy, d.decision.Fallback)
	if d.decision.RetryAfter > 0 {
		text += fmt.Sprintf(", again in %v", d.decision.RetryAfter)
	}
	return text
}

func (d *declined) Unwrap() error { return ErrPolicy }

// Decide says whether an attempt is to be made for peer.
func (p *Policy) Decide(peer string, conditions Conditions) Decision {
	switch {
	case conditions.ClientUnsupported:
		return Decision{Fallback: FallbackClientUnsupported}
	case conditions.Disabled:
		return Decision{Fallback: FallbackPolicyDisabled}
	case conditions.DescriptorPressure:
		return Decision{Fallback: FallbackDescriptorPressure}
	case conditions.AdoptedBackend:
		return Decision{Fallback: FallbackAdoptedBackend}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	window, known := p.failed[peer]
	if !known {
		return Decision{}
	}
	now := p.now()
	window.forget(now.Add(-p.span()))
	if len(window.times) == 0 {
		delete(p.failed, peer)
	}
	if len(window.times) < p.failures() {
		return Decision{}
	}
	// A clock that was set back must not make the wait longer than the window.
	retryAfter := min(window.times[0].Add(p.span()).Sub(now), p.span())
	return Decision{Fallback: FallbackRateLimited, RetryAfter: retryAfter}
}

// Failed records that an attempt for peer failed with err, if that has a Class, and says how its client is served: by
// reconnect. A nil err is a success.
func (p *Policy) Failed(peer string, err error) Decision {
	class, fallback := classify(err)
	if err == nil {
		p.Succeeded(peer)
	}
	if class == "" {
		return Decision{Fallback: fallback}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	window, known := p.failed[peer]
	if !known {
		window = p.rememberLocked(peer)
	}
	window.add(p.now(), p.failures())
	return Decision{Fallback: fallback}
}

// Succeeded records that an attempt for peer succeeded: its failures are forgotten.
func (p *Policy) Succeeded(peer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.failed, peer)
}

// rememberLocked makes room for one more peer.
func (p *Policy) rememberLocked(peer string) *failureWindow {
	peers := p.Peers
	if peers <= 0 {
		peers = DefaultPeers
	}
	if len(p.failed) >= peers {
		p.evictLocked()
	}
	if p.failed == nil {
		p.failed = make(map[string]*failureWindow)
	}
	window := new(failureWindow)
	p.failed[peer] = window
	return window
}

// evictLocked forgets all peers whose failures are old, and if there are none the one that has not failed for longest.
func (p *Policy) evictLocked() {
	var quietest string
	var since time.Time
	before, old := p.now().Add(-p.span()), false
	for peer, window := range p.failed {
		switch last := window.last(); {
		case !last.After(before):
			delete(p.failed, peer)
			old = true
		case since.IsZero() || last.Before(since):
			quietest, since = peer, last
		}
	}
	if !old {
		delete(p.failed, quietest)
	}
}

func (p *Policy) failures() int {
	if p.Failures <= 0 {
		return DefaultFailures
	}
	return min(p.Failures, mostFailures)
}

func (p *Policy) span() time.Duration {
	if p.Window <= 0 {
		return DefaultFailureWindow
	}
	return p.Window
}

func (p *Policy) now() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}
