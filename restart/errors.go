package restart

import "errors"

// What Upgrade, New and Run can fail with. Each failure wraps one of these with its cause; errors.Is finds both, and the
// sentinels of package handoff where the other generation broke the protocol.
var (
	// ErrOptions says that an option has a value that makes no sense.
	ErrOptions = errors.New("invalid option")
	// ErrRunTwice says that Run was called again.
	ErrRunTwice = errors.New("generation has run already")
	// ErrInherited says that the environment announces a predecessor, but what it should have left is not there.
	ErrInherited = errors.New("no usable inheritance")
	// ErrStopSignal says that a stop signal came while New waited for the predecessor, which serves on.
	ErrStopSignal = errors.New("stopped by a signal")
	// ErrUpgradeInProgress says that the caller's context ended while another upgrade was under way.
	ErrUpgradeInProgress = errors.New("upgrade in progress")
	// ErrPredecessorDraining says that this generation's own predecessor had not gone in time.
	ErrPredecessorDraining = errors.New("predecessor still drains")
	// ErrLeaving says that this generation has handed over, or stops. If it has handed over, the request was passed on.
	ErrLeaving = errors.New("generation is leaving")
	// ErrTakeoverDenied says that a process came to Options.Socket that may not take over.
	ErrTakeoverDenied = errors.New("takeover denied")
	// ErrPreflight says that Options.Preflight refused.
	ErrPreflight = errors.New("preflight failed")
	// ErrPanicked says that Options.Preflight or a Codec's Encode panicked.
	ErrPanicked = errors.New("service panicked")
	// ErrSpawn says that no successor could be started: binary missing, not executable, of another architecture.
	ErrSpawn = errors.New("cannot start successor")
	// ErrSuccessorExited says that the successor died before the commit.
	ErrSuccessorExited = errors.New("successor exited")
	// ErrUpgradeTimeout says that the successor took longer than Options.UpgradeTimeout.
	ErrUpgradeTimeout = errors.New("upgrade timed out")
	// ErrPingTimeout says that the successor did not answer within Options.PingTimeout.
	ErrPingTimeout = errors.New("successor does not answer")
	// ErrUnhealthy says that the successor's Options.Healthy failed.
	ErrUnhealthy = errors.New("successor is unhealthy")
	// ErrRolledBack says that the successor had begun to serve and that the predecessor took over again.
	ErrRolledBack = errors.New("upgrade rolled back")
)

// How a generation's group of actors ends when nothing went wrong.
var (
	errHandedOver = errors.New("handed over")
	errStopped    = errors.New("stopped")
)
