package restart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// The values that a zero field of Options stands for.
const (
	DefaultUpgradeTimeout = time.Minute
	DefaultProbation      = 2 * time.Second
	DefaultDrain          = 30 * time.Second
	DefaultPingInterval   = 250 * time.Millisecond
	DefaultPingTimeout    = time.Second
)

// maxSocketPath is the longest Options.Socket. An address has room for 107 bytes (unix(7)), and each socket is made under a longer
// name first: temporaryName.
const maxSocketPath = 107 - len(".-4194304") // the largest pid: proc(5), pid_max

// MaxProbation is the longest Options.Probation.
const MaxProbation = time.Hour

// Options is what a service may want otherwise. The zero value works.
type Options struct {
	// Logger gets a line for each thing an operator would ask about. Nil means slog.Default().
	Logger *slog.Logger

	// Observer is told what becomes of each upgrade.
	Observer Observer

	// PIDFile is written, atomically and with mode 0644, by each generation from the moment on that it is the one to
	// signal, and again after a failed upgrade. The last generation removes it. Empty means none. A relative path is
	// relative to the working directory at New.
	//
	// A stop signal that comes right after the commit, while the file still names the process that gets it, ends the successor that it
	// has started, too. Otherwise, without a file, and when another process has taken over, it ends from the commit on only
	// the process that gets it.
	PIDFile string

	// Socket is the path of a Unix socket at which a process that something else started (a service manager, an operator)
	// takes over from the serving generation: it is New, with the same Socket, that does. Its uid must be that of this
	// process, root's, or in AllowUIDs, and it must be able to read the token file beside the socket (Socket + ".token",
	// mode 0600). The socket has mode 0600, too, or 0666 with AllowUIDs. Empty means that nobody can. Linux only; elsewhere New fails with
	// errors.ErrUnsupported. A relative path is relative to the working directory at New; with that it has 98 bytes at most.
	Socket    string
	AllowUIDs []int

	// UpgradeTimeout is how long a successor may take from its start until it says that it is ready; and as long again,
	// beyond Probation, until it asks for the commit. 0 means DefaultUpgradeTimeout.
	UpgradeTimeout time.Duration

	// Probation is how long a successor serves before it asks for the commit; until then its predecessor can take over
	// again. 0 means DefaultProbation, less means none. It is the successor's own setting that counts.
	Probation time.Duration

	// Drain is how long a leaving generation waits for its connections to move or end before it closes what is left. 0 means
	// DefaultDrain, less means not at all.
	Drain time.Duration

	// Spread is over how much time the moving of the HTTP/1 connections that there are is spread, so that neither they nor the
	// successor see them all at once. 0 means as fast as the successor takes them. It ends at half of Drain if it is longer than the
	// successor's probation and that.
	Spread time.Duration

	// PingInterval is how often a successor in probation is asked whether it is alive, PingTimeout how long it may take
	// to answer. 0 means DefaultPingInterval and DefaultPingTimeout.
	PingInterval time.Duration
	PingTimeout  time.Duration

	// Healthy is called in a successor, several times during probation and once at its end. An error makes the
	// predecessor take over again. It should return when ctx ends, which it does when the predecessor's patience does.
	Healthy func(ctx context.Context) error

	// Preflight is called in the serving generation before an upgrade touches anything, and may refuse it: to check the
	// configuration that the successor would read, say.
	Preflight func(ctx context.Context) error

	// ListenConfig opens sockets that were not inherited. Its keepalive settings also hold for what inherited sockets
	// accept.
	ListenConfig net.ListenConfig

	// UpgradeSignals start an upgrade; nil means SIGHUP. StopSignals drain and end the service, the second one without
	// waiting; nil means SIGTERM and SIGINT. An empty slice means none.
	UpgradeSignals []os.Signal
	StopSignals    []os.Signal
}

// patience is how long a successor that is ready waits for a word before it accepts beside its predecessor.
func (o Options) patience() time.Duration { return o.PingInterval + o.PingTimeout*doubtAfter/100 }

// resolved returns o with its zero fields filled in.
func (o Options) resolved() (Options, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	for _, field := range []struct {
		name     string
		value    *time.Duration
		fallback time.Duration
		negative bool // less than zero means none
	}{
		{"UpgradeTimeout", &o.UpgradeTimeout, DefaultUpgradeTimeout, false},
		{"Probation", &o.Probation, DefaultProbation, true},
		{"Drain", &o.Drain, DefaultDrain, true},
		{"PingInterval", &o.PingInterval, DefaultPingInterval, false},
		{"PingTimeout", &o.PingTimeout, DefaultPingTimeout, false},
		{"Spread", &o.Spread, 0, false},
	} {
		switch {
		case *field.value == 0:
			*field.value = field.fallback
		case *field.value < 0 && !field.negative:
			return o, fmt.Errorf("%w: %s is %v, want more than 0", ErrOptions, field.name, *field.value)
		}
		*field.value = max(*field.value, 0)
	}
	if o.Probation > MaxProbation {
		return o, fmt.Errorf("%w: Probation is %v, want at most %v", ErrOptions, o.Probation, MaxProbation)
	}
	if o.UpgradeSignals == nil {
		o.UpgradeSignals = []os.Signal{syscall.SIGHUP}
	}
	if o.StopSignals == nil {
		o.StopSignals = []os.Signal{syscall.SIGTERM, syscall.SIGINT}
	}
	for name, path := range map[string]*string{"PIDFile": &o.PIDFile, "Socket": &o.Socket} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return o, fmt.Errorf("%w: %s %q: %w", ErrOptions, name, *path, err)
		}
		*path = absolute
	}
	if o.Socket != "" && !canTakeOver {
		return o, fmt.Errorf("%w: Socket %q: %w", ErrOptions, o.Socket, errors.ErrUnsupported)
	}
	if len(o.Socket) > maxSocketPath {
		return o, fmt.Errorf("%w: Socket %q has %d bytes, want %d at most", ErrOptions, o.Socket, len(o.Socket), maxSocketPath)
	}
	return o, nil
}
