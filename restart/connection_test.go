package restart

import (
	"errors"
	"net"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/segue-go/segue/handoff"
	"github.com/segue-go/segue/internal/ledger"
	"github.com/segue-go/segue/internal/scm"
	"github.com/segue-go/segue/internal/wire"
	"github.com/segue-go/segue/listener"
)

func TestLuggageArrivesAsItWasPacked(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	book, err := ledger.New(2)
	if err != nil {
		t.Skip("needs a ledger: ", err)
	}
	defer book.Close()
	for _, test := range []struct {
		slot int
		want listener.Detached
	}{
		{0, listener.Detached{}},
		{2, listener.Detached{Residual: []byte("GET"), Idle: true, Left: time.Hour, Options: listener.ConnOptions{TCP: true, NoDelay: true,
			KeepAlive: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 14 * time.Second, Count: 9}}}},
	} {
		want := test.want
		want.At = time.Now()
		if want.Descriptor, err = scm.Duplicate(null); err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		entry, err := connectionEntry("web", test.slot, &want)
		if err != nil {
			t.Fatal(err)
		}
		have, err := connectionFrom(&entry, book)
		if err != nil {
			t.Fatal(err)
		}
		if late := want.Left - have.Left; late < 0 || late > time.Minute {
			t.Errorf("time left: want %v or a little less, have %v", want.Left, have.Left)
		}
		if test.slot > 0 {
			want.Slot = book.Slot(test.slot - 1)
		}
		have.Left, have.At = want.Left, want.At
		if !reflect.DeepEqual(&want, have) {
			t.Errorf("want %+v, have %+v", want, have)
		}
		if entry.Descriptor != nil {
			t.Error("the entry still owns the descriptor")
		}
	}
}

// A server may keep idle connections for longer than the successor believes.
func TestLuggageOfALongIdleTimeIsAccepted(t *testing.T) {
	entry, err := connectionEntry("web", 0, &listener.Detached{Idle: true, Left: 2 * maxLeft, At: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	have, err := connectionFrom(&entry, nil)
	if err != nil {
		t.Fatal(err)
	}
	if have.Left != maxLeft {
		t.Errorf("time left: want %v, have %v", maxLeft, have.Left)
	}
}

func TestInvariant7ImpossibleLuggageIsRefused(t *testing.T) {
	book, err := ledger.New(2)
	if err != nil {
		t.Skip("needs a ledger: ", err)
	}
	defer book.Close()
	for name, l := range map[string]luggage{
		"much residual": {Residual: make([]byte, maxResidual+1)},
		"negative time": {Idle: true, Left: -1},
		"eternity":      {Idle: true, Left: maxLeft + 1},
		"no such slot":  {Slot: 3},
		"negative slot": {Slot: -1},
	} {
		data, err := wire.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := connectionFrom(&handoff.Entry{Kind: kindConnection, Data: data}, book); !errors.Is(err, handoff.ErrMalformed) {
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
		d, err := connectionFrom(&handoff.Entry{Kind: kindConnection, Data: data}, nil)
		if err != nil {
			return
		}
		entry, err := connectionEntry("web", 0, d)
		if err != nil {
			t.Fatalf("accepted, and cannot be passed on: %v", err)
		}
		again, err := connectionFrom(&entry, nil)
		if err != nil || again.Left > d.Left || len(again.Residual) != len(d.Residual) || again.Options != d.Options {
			t.Fatalf("want %+v, have %+v, %v", d, again, err)
		}
	})
}
