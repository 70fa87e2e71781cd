package scm

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A descriptor table without room: some or all descriptors of the message stay behind.
func TestTruncated(t *testing.T) {
	const limit = 64
	if !inChild(t, nil) {
		return
	}
	for name, test := range map[string]struct{ free, sent int }{
		"no room":   {0, 5},
		"some room": {2, 5},
		"one less":  {4, 5},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := connected(t)
			must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}))
			must(t, Send(background, a, []byte("x"), make([]int, test.sent))) // standard input each time
			full := fillTable(t)
			for _, fd := range full[:test.free] {
				must(t, unix.Close(fd))
			}
			before := openDescriptors()
			d, err := Receive(background, b, make([]byte, 1), test.sent)
			if d != nil || !errors.Is(err, ErrTruncated) {
				t.Errorf("have %v, %v, want ErrTruncated", d, err)
			}
			if after := openDescriptors(); after != before {
				t.Errorf("have %d open descriptors, want %d as before", after, before)
			}
			for _, fd := range full[test.free:] {
				must(t, unix.Close(fd))
			}
			must(t, exchange(a, b))
		})
	}
}

// The kernel limits the descriptors that a user has in flight by RLIMIT_NOFILE, unless the user has CAP_SYS_RESOURCE or
// CAP_SYS_ADMIN. So root becomes a user nobody else is; others test as themselves.
func TestTooManyInFlight(t *testing.T) {
	const limit, batch = 400, MaxDescriptors // two batches are above the limit, whatever the user's other processes do
	var user *syscall.SysProcAttr
	if os.Getuid() == 0 {
		user = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(1<<24 + os.Getpid()), Gid: 65534}}
	}
	if !inChild(t, user) {
		return
	}
	noLeak(t)
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}))
	a, b := connected(t)
	fds := make([]int, batch) // standard input each time
	crowd := func(conn *net.UnixConn) {
		t.Helper()
		ctx, cancel := context.WithTimeout(background, 20*time.Second)
		defer cancel()
		for range 2 {
			err := Send(ctx, conn, []byte("x"), fds)
			if errors.Is(err, ErrTooManyInFlight) {
				t.Skipf("other processes of user %d keep too many descriptors in flight: %v", os.Getuid(), err)
			}
			must(t, err)
		}
	}
	receive := func() {
		t.Helper()
		d, err := Receive(background, b, make([]byte, 1), batch)
		must(t, err)
		must(t, d.Close())
	}
	sent := make(chan error)
	crowd(a)

	// The moment of the end must not matter: in the pauses, which are 1, 2, 4 ms, or between them.
	for i := range 200 {
		ctx, cancel := context.WithTimeout(background, time.Duration(i)*20*time.Microsecond)
		watched := watch(ctx)
		err := Send(watched, a, []byte("x"), fds)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || watched.pauses() > 0 && !errors.Is(err, ErrTooManyInFlight) {
			t.Fatalf("have %v, want context.DeadlineExceeded and, after a pause, ErrTooManyInFlight", err)
		}
	}
	ctx, cancel := context.WithCancel(background)
	watched := watch(ctx)
	go func() { sent <- Send(watched, a, []byte("x"), fds) }()
	watched.await(3)
	cancel()
	if err := <-sent; !errors.Is(err, ErrTooManyInFlight) || !errors.Is(err, context.Canceled) {
		t.Errorf("have %v, want ErrTooManyInFlight and context.Canceled", err)
	}

	// Without descriptors there is nothing to wait for.
	must(t, Send(background, a, []byte("y"), nil))

	// Send goes on once the peer receives.
	watched = watch(background)
	go func() { sent <- Send(watched, a, []byte("x"), fds) }()
	watched.await(3)
	receive()
	receive()
	if _, err := Receive(background, b, make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
	must(t, <-sent)
	receive()

	// Send ends if the peer closes, though another socket keeps the user at the limit.
	c, _ := connected(t)
	crowd(c)
	watched = watch(background)
	go func() { sent <- Send(watched, a, []byte("x"), fds) }()
	watched.await(2)
	must(t, b.Close())
	if err := <-sent; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("have %v, want EPIPE", err)
	}
}

// Socket options of ours that make the kernel add control messages; one of them brings a descriptor.
func TestControlMessage(t *testing.T) {
	for name, option := range map[string]int{
		"SCM_CREDENTIALS": unix.SO_PASSCRED,
		"SCM_PIDFD":       unix.SO_PASSPIDFD,
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			a, b := connected(t)
			raw, err := b.SyscallConn()
			must(t, err)
			must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 1) }))
			if errors.Is(err, unix.ENOPROTOOPT) {
				t.Skipf("this kernel has no such option (SO_PASSPIDFD came with Linux 6.5): %v", err)
			}
			must(t, err)
			must(t, Send(background, a, []byte("x"), files(t, 3)))
			d, err := Receive(background, b, make([]byte, 1), 3)
			if d != nil || !errors.Is(err, ErrControlMessage) {
				t.Errorf("have %v, %v, want ErrControlMessage", d, err)
			}
		})
	}
}

// The errors name the operation and the socket.
func TestErrorText(t *testing.T) {
	noLeak(t)
	path := t.TempDir() + "/s"
	listener, err := net.Listen("unix", path)
	must(t, err)
	defer listener.Close()
	conn, err := net.Dial("unix", path)
	must(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(background, time.Millisecond)
	defer cancel()
	_, err = Receive(ctx, conn.(*net.UnixConn), make([]byte, 1), 0)
	have := strings.ReplaceAll(err.Error(), path, "PATH")
	if want := "receive unix @->PATH: context deadline exceeded"; have != want {
		t.Errorf("have %q, want %q", have, want)
	}
}

const childVariable = "SEGUE_SCM_TEST_CHILD"

// inChild runs this one test again in a process of its own, whose limits may be changed, and reports true there. The
// parent fails if the child did.
func inChild(t *testing.T, attr *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(childVariable) != "" {
		return true
	}
	// By its path the binary may be out of reach for another user.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = attr
	output, err := cmd.CombinedOutput()
	if attr != nil && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)) {
		t.Skipf("this root may not become user %d: %v", attr.Credential.Uid, err)
	}
	if strings.Contains(string(output), "\n--- SKIP: "+t.Name()) {
		t.Skipf("child: %s", output)
	}
	if err != nil || !strings.Contains(string(output), "\n--- PASS: "+t.Name()) {
		t.Errorf("child: %v\n%s", err, output)
	}
	return false
}

// fillTable duplicates standard input until the descriptor table is full.
func fillTable(t *testing.T) (fds []int) {
	t.Helper()
	for {
		fd, err := unix.Dup(0)
		if errors.Is(err, unix.EMFILE) {
			return fds
		}
		must(t, err)
		fds = append(fds, fd)
	}
}

// watchedContext tells of the pauses that Send makes: in each it begins to wait for the end of the context. It also does
// so when it starts, as often as [context.AfterFunc] cares to.
type watchedContext struct {
	context.Context
	atStart int
	waits   chan struct{}
}

func watch(ctx context.Context) *watchedContext {
	w := &watchedContext{Context: ctx, waits: make(chan struct{}, 1000)}
	context.AfterFunc(w, func() {})()
	w.atStart = len(w.waits)
	w.await(0)
	return w
}

func (w *watchedContext) Done() <-chan struct{} {
	select {
	case w.waits <- struct{}{}:
	default:
	}
	return w.Context.Done()
}

// pauses is how many there were, as far as await has not seen them.
func (w *watchedContext) pauses() int {
	return len(w.waits) - w.atStart
}

// await returns once Send has begun that many pauses.
func (w *watchedContext) await(pauses int) {
	for range w.atStart + pauses {
		<-w.waits
	}
}
