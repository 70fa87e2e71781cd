package restart

import (
	"errors"
	"net"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/wire"
	"github.com/segue-go/segue/listener"
)

func TestLuggageArrivesAsItWasPacked(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, want := range []listener.Detached{
		{File: file},
		{File: file, Residual: []byte("GET"), Idle: true, Left: 3 * time.Second, Options: listener.ConnOptions{TCP: true, NoDelay: true,
			KeepAlive: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 14 * time.Second, Count: 9}}},
	} {
		entry, err := connectionEntry("web", &want)
		if err != nil {
			t.Fatal(err)
		}
		have, err := connectionFrom(&entry)
		if err != nil || !reflect.DeepEqual(&want, have) {
			t.Errorf("want %+v, have %+v, %v", want, have, err)
		}
		if entry.File != nil {
			t.Error("the entry still owns the descriptor")
		}
	}
}

func TestInvariant7ImpossibleLuggageIsRefused(t *testing.T) {
	for name, l := range map[string]luggage{
		"much residual": {Residual: make([]byte, maxResidual+1)},
		"negative time": {Idle: true, Left: -1},
		"eternity":      {Idle: true, Left: maxLeft + 1},
	} {
		data, err := wire.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := connectionFrom(&handoff.Entry{Kind: kindConnection, Data: data}); !errors.Is(err, handoff.ErrMalformed) {
			t.Errorf("%s: want ErrMalformed, have %v", name, err)
		}
	}
}

func FuzzConnectionFrom(f *testing.F) {
	for _, l := range []luggage{
		{}, {Residual: []byte("GET"), Idle: true, Left: time.Second},
		{TCP: true, NoDelay: true, KeepAlive: true, Start: 15 * time.Second, Interval: 15 * time.Second, Count: 9},
	} {
		data, err := wire.Marshal(l)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := connectionFrom(&handoff.Entry{Kind: kindConnection, Data: data})
		if err != nil {
			return
		}
		entry, err := connectionEntry("web", d)
		if err != nil {
			t.Fatalf("accepted, and cannot be passed on: %v", err)
		}
		again, err := connectionFrom(&entry)
		if err != nil || again.Left != d.Left || len(again.Residual) != len(d.Residual) || again.Options != d.Options {
			t.Fatalf("want %+v, have %+v, %v", d, again, err)
		}
	})
}
