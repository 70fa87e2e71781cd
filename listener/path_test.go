//go:build unix

package listener

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// The file of a Unix socket goes exactly when the last generation closes its Set.
func TestUnlink(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			path := tempPath(t, "s")
			listen := func(s *Set) interface{ Close() error } {
				if network == "unixgram" {
					return must(s.ListenPacket(testContext(t), "s", network, path))(t)
				}
				return must(s.Listen(testContext(t), "s", network, path))(t)
			}
			a := &Set{}
			la := listen(a)
			b, _ := handOver(t, a)
			lb := listen(b)
			if err := errors.Join(la.Close(), a.Leave()); err != nil {
				t.Fatal(err)
			}
			if !exists(path) {
				t.Fatal("unlinked by a generation that has a successor")
			}
			if err := lb.Close(); err != nil || !exists(path) {
				t.Fatalf("unlinked by a listener: %v", err)
			}
			if err := b.Close(); err != nil || exists(path) {
				t.Fatalf("not unlinked by the last generation: %v", err)
			}
		})
	}
}

// What was inherited and not wanted is unlinked at the end too, but not before.
func TestUnlinkUnclaimed(t *testing.T) {
	path := tempPath(t, "s")
	a, _ := newSet(t)
	must(a.Listen(testContext(t), "s", "unix", path))(t)
	b, _ := handOver(t, a)
	b.CloseUnclaimed()
	if !exists(path) {
		t.Fatal("unlinked while the predecessor has it")
	}
	if err := a.Leave(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil || exists(path) {
		t.Errorf("not unlinked: %v", err)
	}
}

func TestUnlinkNotWhatOthersMade(t *testing.T) {
	t.Run("file", func(t *testing.T) {
		path := tempPath(t, "s")
		s := &Set{}
		must(s.Listen(testContext(t), "s", "unix", path))(t)
		os.Remove(path)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil || !exists(path) {
			t.Errorf("removed a plain file: %v", err)
		}
	})
	t.Run("socket", func(t *testing.T) {
		path := tempPath(t, "s")
		s := &Set{}
		must(s.Listen(testContext(t), "s", "unix", path))(t)
		if err := os.Rename(path, path+".away"); err != nil { // keeps its inode from being used again
			t.Fatal(err)
		}
		other := must(net.Listen("unix", path))(t)
		defer other.Close()
		if err := s.Close(); err != nil || !exists(path) {
			t.Errorf("removed another program's socket: %v", err)
		}
	})
	t.Run("gone", func(t *testing.T) {
		path := tempPath(t, "s")
		s := &Set{}
		must(s.Listen(testContext(t), "s", "unix", path))(t)
		os.Remove(path)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("failure is told", func(t *testing.T) {
		path := tempPath(t, "s")
		s := &Set{}
		must(s.Listen(testContext(t), "s", "unix", path))(t)
		s.paths["/dev/null/not a directory"] = s.paths[path]
		if err := s.Close(); !errors.Is(err, syscall.ENOTDIR) || exists(path) {
			t.Errorf("have %v, want %v, and the other file removed", err, syscall.ENOTDIR)
		}
	})
}

// A relative path means the directory in which Listen was called, here and in the next generation.
func TestRelativePath(t *testing.T) {
	path := tempPath(t, "s")
	t.Chdir(filepath.Dir(path))
	a := &Set{}
	la := must(a.Listen(testContext(t), "s", "unix", "s"))(t)
	if have := la.Addr().String(); have != path {
		t.Errorf("have %s, want %s", have, path)
	}
	b, _ := handOver(t, a)
	if l := must(b.Listen(testContext(t), "s", "unix", "./s"))(t); !l.Inherited() {
		t.Error("not inherited under its relative path")
	}
	c, _ := handOver(t, b)
	t.Chdir("/")
	if l := must(c.Listen(testContext(t), "s", "unix", path))(t); !l.Inherited() {
		t.Error("not inherited under its absolute path")
	}
	if err := errors.Join(a.Leave(), b.Leave()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil || exists(path) {
		t.Errorf("not unlinked after a chdir: %v", err)
	}
}

// /var/run/s and /run/s are one socket.
func TestPathThroughSymlink(t *testing.T) {
	path := tempPath(t, "s")
	other := filepath.Dir(path) + "-link"
	if err := os.Symlink(filepath.Dir(path), other); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(other)
	a, _ := newSet(t)
	must(a.Listen(testContext(t), "s", "unix", path))(t)
	b, _ := handOver(t, a)
	if l := must(b.Listen(testContext(t), "s", "unix", other+"/s"))(t); !l.Inherited() {
		t.Error("not inherited")
	}
}

// The file of a dead process is replaced; that of a living one is not.
func TestLeftover(t *testing.T) {
	ctx := testContext(t)
	s, _ := newSet(t)
	listen := func(network, path string) error {
		var err error
		if network == "unixgram" {
			_, err = s.ListenPacket(ctx, path, network, path)
		} else {
			_, err = s.Listen(ctx, path, network, path)
		}
		return err
	}
	for _, network := range []string{"unix", "unixpacket", "unixgram"} {
		t.Run(network+" dead", func(t *testing.T) {
			path := tempPath(t, "s")
			dead := &Set{}
			if network == "unixgram" {
				must(dead.ListenPacket(ctx, "s", network, path))(t)
			} else {
				must(dead.Listen(ctx, "s", network, path))(t)
			}
			dead.Leave() // and unlinks nothing
			dead.Close() // nobody has it now
			leavesNoFD(t, func() {
				if err := listen(network, path); err != nil {
					t.Error(err)
				}
				for name, m := range s.members {
					if name == path {
						m.close()
					}
				}
			})
		})
		for _, lives := range []string{"unix", "unixpacket", "unixgram"} {
			t.Run(network+" over a living "+lives, func(t *testing.T) {
				path := tempPath(t, "s")
				alive, _ := newSet(t)
				if lives == "unixgram" {
					must(alive.ListenPacket(ctx, "s", lives, path))(t)
				} else {
					must(alive.Listen(ctx, "s", lives, path))(t)
				}
				leavesNoFD(t, func() {
					if err := listen(network, path); !errors.Is(err, syscall.EADDRINUSE) {
						t.Errorf("have %v, want %v", err, syscall.EADDRINUSE)
					}
				})
				if !exists(path) {
					t.Error("removed")
				}
			})
		}
	}
	t.Run("plain file", func(t *testing.T) {
		path := tempPath(t, "s")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := listen("unix", path); !errors.Is(err, syscall.EADDRINUSE) || !exists(path) {
			t.Errorf("have %v, want %v and the file", err, syscall.EADDRINUSE)
		}
	})
}

// A Set that is closed while Listen opens a socket keeps nothing: not the descriptor, not the file.
func TestCloseDuringListen(t *testing.T) {
	path := tempPath(t, "s")
	leavesNoFD(t, func() {
		var s Set
		s.ListenConfig.Control = func(string, string, syscall.RawConn) error { return s.Close() }
		_, err := s.Listen(testContext(t), "s", "unix", path)
		if !errors.Is(err, net.ErrClosed) || exists(path) {
			t.Errorf("have %v, want %v and no file", err, net.ErrClosed)
		}
	})
	if strings.Contains(strings.Join(openFDs(t), "\n"), path) {
		t.Error("still open")
	}
}
