package restart

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestZeroOptionsWork(t *testing.T) {
	have, err := Options{}.resolved()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name       string
		want, have time.Duration
	}{
		{"UpgradeTimeout", DefaultUpgradeTimeout, have.UpgradeTimeout},
		{"Probation", DefaultProbation, have.Probation},
		{"Drain", DefaultDrain, have.Drain},
		{"PingInterval", DefaultPingInterval, have.PingInterval},
		{"PingTimeout", DefaultPingTimeout, have.PingTimeout},
	} {
		if test.want != test.have {
			t.Errorf("%s: want %v, have %v", test.name, test.want, test.have)
		}
	}
	if have.Logger == nil || len(have.UpgradeSignals) != 1 || have.UpgradeSignals[0] != syscall.SIGHUP || len(have.StopSignals) != 2 {
		t.Errorf("want a logger, SIGHUP, and two stop signals, have %+v", have)
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	for name, options := range map[string]Options{
		"UpgradeTimeout": {UpgradeTimeout: -1}, "PingInterval": {PingInterval: -1}, "PingTimeout": {PingTimeout: -1},
	} {
		if _, err := options.resolved(); !errors.Is(err, ErrOptions) {
			t.Errorf("negative %s: want ErrOptions, have %v", name, err)
		}
	}
	if canTakeOver {
		longest := "/" + strings.Repeat("s", maxSocketPath-1)
		if _, err := (Options{Socket: longest}).resolved(); err != nil {
			t.Errorf("path of %d bytes: %v", len(longest), err)
		}
		if _, err := (Options{Socket: longest + "s"}).resolved(); !errors.Is(err, ErrOptions) {
			t.Errorf("path of %d bytes: want ErrOptions, have %v", len(longest)+1, err)
		}
	}
	have, err := Options{Probation: -1, Drain: -5}.resolved()
	if err != nil || have.Probation != 0 || have.Drain != 0 {
		t.Errorf("less than zero means none: have probation %v, drain %v, error %v", have.Probation, have.Drain, err)
	}
}

func TestRelativePathsAreResolvedOnce(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	options, err := Options{PIDFile: "pid"}.resolved()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(os.TempDir())
	if want, have := filepath.Join(dir, "pid"), options.PIDFile; want != have {
		t.Errorf("want %s, have %s", want, have)
	}
}
