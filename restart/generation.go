package restart

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/listener"
)

// Generation is one process in the chain that a service is. New makes the process's only one; Run is its life.
//
// Its methods are safe for concurrent use, except that Listen, ListenPacket, File, State, HTTP and Add come before Run.
type Generation struct {
	options Options
	log     *slog.Logger
	spawner spawner
	sockets listener.Set
	states  states
	pidFile pidFile
	door    door

	counters counters

	// predecessor is the other end of the upgrade that started this process; nil in a first generation.
	predecessor *predecessor
	number      int

	actors   []actor
	services map[*http.Server]*httpServer
	movable  map[string]*origin // by name: those whose connections can join another generation
	raw      *rawConns
	intake   intake

	requests chan *upgradeRequest
	hangup   chan os.Signal // an upgrade is wanted
	stop     chan os.Signal // the end is wanted
	bidden   chan struct{}  // the predecessor wants the end

	committed  chan struct{}   // closed: this generation is the one that serves
	leaving    chan struct{}   // closed: it hands over or stops
	signalled  chan struct{}   // closed: a stop signal ends it
	hurry      chan struct{}   // closed: it does not wait for its connections any more
	running    atomic.Bool     // Run was called
	stopsAll   atomic.Bool     // the stop signal came while the PID file named this process
	moving     context.Context // ends when this generation has drained
	stopMoving context.CancelFunc
	unfenced   []*handoff.Session // of successors that could not be ended: an end of the session would tell them to serve
	passedOn   atomic.Bool        // an upgrade was asked for after the handover
	successor  *successor         // who took over; set before leaving is closed
	record     *record            // of the upgrade that made it so
	cut        atomic.Int64       // connections that were closed at the end of the drain
}

type actor struct {
	execute   func() error
	interrupt func(error)
}

// New makes the process's generation: the next, when a predecessor spawned it or one is found at Options.Socket, with
// everything that the predecessor offers; or the first. A next one then has the predecessor's patience (its
// UpgradeTimeout) to get to Run.
//
// Call it early: until then SIGHUP kills, and what tableflip leaves to its child (an environment variable and
// descriptors) would reach the service's own children. Only one generation can be made in a process. It fails with
// ErrOptions, ErrInherited, ErrStopSignal if a stop signal comes while it waits for the predecessor, or the errors of handoff when
// the predecessor refuses or breaks the protocol; a predecessor that died is no failure.
func New(options Options) (*Generation, error) {
	options, err := options.resolved()
	if err != nil {
		return nil, err
	}
	spawner, err := newSpawner(options)
	if err != nil {
		return nil, err
	}
	return newGeneration(options, spawner)
}

func newGeneration(options Options, spawner spawner) (*Generation, error) {
	g := &Generation{
		options:   options,
		log:       options.Logger,
		spawner:   spawner,
		sockets:   listener.Set{ListenConfig: options.ListenConfig, Logger: options.Logger},
		pidFile:   pidFile{path: options.PIDFile},
		door:      door{path: options.Socket, allowed: options.AllowUIDs, log: options.Logger},
		number:    1,
		services:  make(map[*http.Server]*httpServer),
		movable:   make(map[string]*origin),
		requests:  make(chan *upgradeRequest),
		hangup:    make(chan os.Signal, 1),
		stop:      make(chan os.Signal, 1),
		committed: make(chan struct{}),
		leaving:   make(chan struct{}),
		bidden:    make(chan struct{}, 1),
		signalled: make(chan struct{}),
		hurry:     make(chan struct{}),
	}
	g.moving, g.stopMoving = context.WithCancel(context.Background())
	g.raw = newRawConns(g)
	g.intake.budget.measure = measureDescriptors
	if len(options.UpgradeSignals) > 0 {
		signal.Notify(g.hangup, options.UpgradeSignals...)
	}
	if len(options.StopSignals) > 0 {
		signal.Notify(g.stop, options.StopSignals...)
	}
	if err := g.succeed(); err != nil {
		g.abandon()
		return nil, err
	}
	return g, nil
}

// succeed makes this generation its predecessor's successor, if there is one. That one may keep it waiting, so that a stop signal ends
// that. It is told nothing, and serves on.
func (g *Generation) succeed() error {
	ctx, cancel := context.WithCancelCause(context.Background())
	watched := make(chan error, 1)
	go func() {
		select {
		case received := <-g.stop:
			stopped := fmt.Errorf("%w: %v", ErrStopSignal, received)
			cancel(stopped)
			watched <- stopped
		case <-ctx.Done():
			watched <- nil
		}
	}()
	var err error
	if inherited := g.spawner.inherited(); inherited != nil {
		err = g.inheritFrom(ctx, inherited)
	} else if g.options.Socket != "" {
		err = g.takeOver(ctx)
	}
	cancel(nil)
	if stopped := <-watched; stopped != nil {
		return stopped // even if it has just succeeded: nobody else would hear of the signal
	}
	return err
}

// abandon undoes New.
func (g *Generation) abandon() {
	signal.Stop(g.hangup)
	signal.Stop(g.stop)
	g.disinherit()
	_ = g.sockets.Abandon()
	_ = g.sockets.Close()
	g.spawner.stop()
}

// Number returns this generation's place in the chain, from 1.
func (g *Generation) Number() int { return g.number }

// Leaving returns a channel that is closed when this generation begins to hand over for good, or to stop: long-lived
// handlers should come to an end.
func (g *Generation) Leaving() <-chan struct{} { return g.leaving }

// Listen returns the listening socket of that name: the predecessor's, if it had one and it fits network and address,
// or a new one. See listener.Set.Listen for networks, errors and what happens when an address was changed. Accept on it
// blocks until this generation is to serve. It is closed when the generation leaves.
func (g *Generation) Listen(ctx context.Context, name, network, address string) (*listener.Listener, error) {
	return g.sockets.Listen(ctx, name, network, address)
}

// ListenPacket is Listen for udp and unixgram. Reads block until this generation is to serve; when it leaves they end
// with net.ErrClosed, while writes are possible until Run returns.
func (g *Generation) ListenPacket(ctx context.Context, name, network, address string) (*listener.PacketConn, error) {
	return g.sockets.ListenPacket(ctx, name, network, address)
}

// File returns the file of that name that the predecessor had open, or else what open returns; a nil open means that only an
// inherited one will do. The next generation gets a duplicate, which shares its offset and flags. The file may be closed by the
// caller, and otherwise is when Run returns.
func (g *Generation) File(name string, open func() (*os.File, error)) (*os.File, error) {
	return g.sockets.File(name, open)
}

// Add adds an actor to the group that Run runs: execute is the work, interrupt makes it return. When one actor returns,
// all are interrupted. Interrupt must be safe to call after execute has returned, and must not block (see oklog/run).
// Actors run as soon as Run does, that is, in a successor during its probation too.
func (g *Generation) Add(execute func() error, interrupt func(error)) {
	g.actors = append(g.actors, actor{execute, interrupt})
}
