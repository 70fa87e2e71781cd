//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// Clients that keep several requests in flight get all answers, in order and once, through every upgrade, on the connection they
// began with. They cut what they write at random places, so that a server has the start of a request when it has answered those
// before it; one in five requests has a body.
func TestInvariant5PipelinedRequestsThroughUpgrades(t *testing.T) {
	upgrades := 15
	if testing.Short() {
		upgrades = 3
	}
	s := startService(t, config{Probation: 20 * time.Millisecond, Drain: patience})
	clients := dialManyCounting(t, s.address, 100/slowdown)
	stop, progress := make(chan struct{}), make(chan int, len(clients))
	broken, fail := context.WithCancelCause(t.Context())
	defer fail(nil)
	var running sync.WaitGroup
	for i, c := range clients {
		running.Go(func() {
			if err := c.pipeline(2+i%7, stop, progress); err != nil {
				fail(err)
			}
		})
	}
	for number := 1; ; number++ {
		for range clients { // each has an answer of this generation
			select {
			case generation := <-progress:
				if generation != number {
					t.Errorf("want an answer of generation %d, have one of %d", number, generation)
				}
			case <-broken.Done():
				t.Fatal(context.Cause(broken))
			case <-time.After(patience):
				t.Fatalf("generation %d: clients wait for answers", number)
			}
		}
		if number > upgrades {
			break
		}
		before := s.pid()
		s.hangup(number + 1)
		awaitExit(t, before) // all have moved
	}
	close(stop)
	running.Wait()
	if err := context.Cause(broken); err != nil {
		t.Fatal(err)
	}
	askAll(t, clients, s.pid())
	answers := 0
	for _, c := range clients {
		answers += c.taken
	}
	t.Logf("%d answers", answers)
}

// pipeline keeps up to depth requests in flight until stop, and takes all answers. It tells of the first that it has of each
// generation.
func (c *counting) pipeline(depth int, stop <-chan struct{}, progress chan<- int) (err error) {
	inFlight := make(chan bool, depth) // in order: whether it is a POST
	failing := make(chan struct{})
	sent := make(chan error, 1)
	go func() {
		defer close(inFlight)
		sent <- c.send(inFlight, stop, failing)
	}()
	newest := 0
	for post := range inFlight {
		generation := newest
		if post {
			err = c.echoed()
		} else {
			generation, _, err = c.answer()
		}
		if err == nil && generation < newest {
			err = fmt.Errorf("client %d, answer %d: of generation %d after one of %d", c.name, c.taken, generation, newest)
		}
		if err != nil {
			close(failing)
			_ = c.conn.Close() // ends the sender
			break
		}
		if generation > newest {
			progress <- generation
		}
		newest = generation
	}
	if err2 := <-sent; err == nil {
		err = err2
	}
	if more := c.reader.Buffered(); err == nil && more > 0 {
		err = fmt.Errorf("client %d: %d bytes after the last answer", c.name, more)
	}
	return err
}

// send writes requests until stop, as many as fit in the channel. It writes them all to their end.
func (c *counting) send(inFlight chan<- bool, stop, failing <-chan struct{}) error {
	var pending []byte
	for {
		post := rand.IntN(5) == 0
		select {
		case inFlight <- post:
		case <-failing:
			return nil
		}
		if post {
			pending = append(pending, c.nextPost()...)
		} else {
			pending = append(pending, c.next(rand.IntN(200))...)
		}
		select {
		case <-stop:
			return c.write(pending)
		default:
		}
		at := len(pending)
		if len(inFlight) < cap(inFlight) {
			at = rand.IntN(at + 1) // the rest goes with the next, which there is
		}
		if err := c.write(pending[:at]); err != nil {
			return err
		}
		pending = append(pending[:0], pending[at:]...)
	}
}

// nextPost is next with a body, which the answer repeats instead of the number.
func (c *counting) nextPost() []byte {
	c.made++
	body := c.body(c.made)
	return fmt.Appendf(nil, "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func (c *counting) body(number int) string {
	text := fmt.Sprintf("%d-%d ", c.name, number)
	for len(text) < 1+number*31%500 {
		text += text
	}
	return text
}

// echoed takes the answer to a POST.
func (c *counting) echoed() error {
	c.taken++
	have, err := c.read()
	if want := c.body(c.taken); err == nil && have != want {
		err = fmt.Errorf("want %q, have %q", want, have)
	}
	if err != nil {
		return fmt.Errorf("client %d, answer %d: %w", c.name, c.taken, err)
	}
	return nil
}
