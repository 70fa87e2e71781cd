//go:build linux

package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/segue-go/segue/internal/scm"
)

func TestOneSideReadsWhatTheOtherWrites(t *testing.T) {
	predecessor, err := New(3)
	if err != nil {
		t.Fatal(err)
	}
	defer predecessor.Close()
	successor, err := Open(predecessor.Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	defer successor.Close()
	for _, test := range []struct {
		name      string
		write     func(*Slot)
		state     State
		readAhead string
	}{
		{"nothing", func(*Slot) {}, Untouched, ""},
		{"used", func(s *Slot) { s.Use() }, Used, ""},
		{"clean", func(s *Slot) { s.Use(); s.Clean(nil) }, Clean, ""},
		{"clean, a zero byte read ahead", func(s *Slot) { s.Clean([]byte{0}) }, Clean, "\x00"},
		{"clean, three bytes read ahead", func(s *Slot) { s.Clean([]byte("\r\nG")) }, Clean, "\r\nG"},
		{"more read ahead than can be noted", func(s *Slot) {
			s.Use()
			if s.Clean([]byte("GET ")) {
				t.Error("four bytes: want false")
			}
		}, Used, ""},
		{"clean, and used again", func(s *Slot) { s.Clean([]byte("GE")); s.Use() }, Used, ""},
		{"ended", func(s *Slot) { s.Use(); s.End() }, Ended, ""},
		{"ended with bytes", func(s *Slot) { s.word.Store(0x4113) }, Used, ""},
		{"a state of a later version", func(s *Slot) { s.word.Store(4) }, Used, ""},
		{"nonsense", func(s *Slot) { s.word.Store(0xffffffff) }, Used, ""},
		{"clean with too many bytes", func(s *Slot) { s.word.Store(0x42) }, Used, ""},
		{"untouched with bytes", func(s *Slot) { s.word.Store(0x4110) }, Used, ""},
	} {
		theirs, ours := successor.Slot(1), predecessor.Slot(1)
		theirs.word.Store(0)
		test.write(theirs)
		state, readAhead := ours.Read()
		if state != test.state || string(readAhead) != test.readAhead {
			t.Errorf("%s: want %d %q, have %d %q", test.name, test.state, test.readAhead, state, readAhead)
		}
		if want, have := test.name == "used" || test.name == "clean, and used again", ours.InUse(); want && !have {
			t.Errorf("%s: want it in use", test.name)
		}
	}
	for _, i := range []int{-1, 3} {
		if predecessor.Slot(i) != nil {
			t.Errorf("slot %d of 3: want none", i)
		}
	}
}

// A peer's file that could shrink would be a way to kill this process.
func TestInvariant7OnlySealedMemoryIsMapped(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	memory := func(size int64, seals int) *scm.Descriptor {
		fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err == nil {
			err = unix.Ftruncate(fd, size)
		}
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
		}
		if err != nil {
			t.Fatal(err)
		}
		return scm.NewDescriptor(fd)
	}
	plain, err := scm.Duplicate(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name       string
		descriptor *scm.Descriptor
	}{
		{"a file", plain},
		{"not sealed", memory(4096, 0)},
		{"empty", memory(0, unix.F_SEAL_SHRINK)},
		{"half a slot", memory(6, unix.F_SEAL_SHRINK)},
		{"too large", memory(MaxSlots*4+4, unix.F_SEAL_SHRINK)},
	} {
		if l, err := Open(test.descriptor); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: want ErrInvalid, have %v, %v", test.name, l, err)
		}
		_ = test.descriptor.Close()
	}
	for _, n := range []int{-1, 0, MaxSlots + 1} {
		if _, err := New(n); err == nil {
			t.Errorf("%d slots: want an error", n)
		}
	}
}
