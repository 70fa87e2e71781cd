package restart

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/segue-go/segue/handoff"
)

const (
	// tokenSuffix makes the name of the token file from that of the takeover socket.
	tokenSuffix = ".token"
	// doorTokenTTL is as good as for ever: a token on disk is for whoever may read it, until it is used.
	doorTokenTTL = 10 * 365 * 24 * time.Hour
	// knockTries is how often a takeover is tried anew when the generation that was found is just being replaced.
	knockTries = 20
	knockPause = 50 * time.Millisecond
	// acceptPause is how long the door waits after an error before it tries again.
	acceptPause = 100 * time.Millisecond
	// visitorHelloTimeout is how long a visitor may take to show the token; it keeps other upgrades waiting meanwhile.
	visitorHelloTimeout = 2 * time.Second
)

// door is where a process that something else started can come and take over: a listening Unix socket, and beside it a
// file with the token, which says that the visitor may read this service's files. Both are made anew by each generation
// when it begins to serve, in one step each, so that a visitor finds the old pair or the new, or is sent away once between.
type door struct {
	path    string
	allowed []int
	log     *slog.Logger

	listener *net.UnixListener
	own      os.FileInfo // of the socket's file
	tokens   *handoff.TokenStore
	token    handoff.Token
	visitors chan *visitor
}

// open begins to receive visitors. An empty path means none.
func (d *door) open() error {
	if d.path == "" {
		return nil
	}
	d.tokens = &handoff.TokenStore{TTL: doorTokenTTL}
	if err := d.renew(); err != nil {
		return err
	}
	temporary := temporaryName(d.path)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return fmt.Errorf("takeover socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	mode := os.FileMode(0o600)
	if len(d.allowed) > 0 {
		mode = 0o666 // their credentials are asked for when they come
	}
	err = os.Chmod(temporary, mode)
	if err == nil {
		d.own, err = os.Lstat(temporary)
	}
	if err == nil {
		err = os.Rename(temporary, d.path)
	}
	if err != nil {
		_ = os.Remove(temporary)
		_ = ln.Close()
		return fmt.Errorf("takeover socket: %w", err)
	}
	d.listener = ln
	if d.visitors == nil {
		d.visitors = make(chan *visitor)
	}
	return nil
}

// restore has the next visitor find this door again, after one that failed: the token was used, and if the visitor had been committed
// already, the path leads to a door of its own, where nobody is.
func (d *door) restore(ctx context.Context) error {
	if now, err := os.Lstat(d.path); err == nil && os.SameFile(now, d.own) {
		if d.tokens.Pending() > 0 {
			return nil // the token was not used
		}
		return d.renew()
	}
	_ = d.listener.Close()
	if err := d.open(); err != nil {
		return err
	}
	go d.receive(ctx, d.listener)
	return nil
}

// renew writes a token that has not been used. If that fails, none is pending.
func (d *door) renew() (err error) {
	d.tokens.Revoke(d.token)
	token, err := d.tokens.Issue()
	if err != nil {
		return err
	}
	d.token = token
	defer func() {
		if err != nil {
			d.tokens.Revoke(token)
		}
	}()
	temporary := temporaryName(d.path + tokenSuffix)
	if err := os.WriteFile(temporary, token.Expose(), 0o600); err != nil {
		return fmt.Errorf("takeover token: %w", err)
	}
	if err := os.Rename(temporary, d.path+tokenSuffix); err != nil {
		_ = os.Remove(temporary)
		return fmt.Errorf("takeover token: %w", err)
	}
	return nil
}

func temporaryName(path string) string {
	return filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s-%d", filepath.Base(path), os.Getpid()))
}

// receive lets visitors in, one after the other, until ctx ends or the door is closed.
func (d *door) receive(ctx context.Context, ln *net.UnixListener) {
	for {
		conn, err := ln.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			d.log.Error("cannot receive a visitor", "error", err) // descriptors may be short just now
			select {
			case <-time.After(acceptPause):
				continue
			case <-ctx.Done():
				return
			}
		}
		visitor, err := receiveVisitor(conn, d.admits)
		if err != nil {
			d.log.Warn("visitor sent away", "error", err)
			continue
		}
		select {
		case d.visitors <- visitor:
		case <-ctx.Done():
			visitor.dismiss(handoff.ReasonStopped, "leaving")
			return
		}
	}
}

func (d *door) admits(uid int) bool {
	return uid == 0 || uid == os.Geteuid() || slices.Contains(d.allowed, uid)
}

// close receives nobody any more. The files are removed if nobody is to come after this generation, and if they are its own.
func (d *door) close(last bool) {
	if d.listener == nil {
		return
	}
	_ = d.listener.Close()
	if now, err := os.Lstat(d.path); last && err == nil && os.SameFile(now, d.own) {
		_ = os.Remove(d.path)
		_ = os.Remove(d.path + tokenSuffix)
	}
}

// errNobody says that no generation serves at a door.
var errNobody = errors.New("nobody to take over from")

// knock connects to the generation that serves at the door at path. It fails with errNobody if there is none, and with
// fs.ErrNotExist if it has no token out just now.
func knock(path string) (*net.UnixConn, handoff.Token, error) {
	// The token first, because a visitor that has none is only a nuisance.
	token, tokenErr := readToken(path + tokenSuffix)
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, handoff.Token{}, errNobody // never started, or gone without a word
	case err != nil:
		return nil, handoff.Token{}, fmt.Errorf("take over: %w", err)
	case tokenErr != nil:
		_ = conn.Close()
		return nil, handoff.Token{}, fmt.Errorf("take over: %w", tokenErr)
	}
	return conn, token, nil
}

func readToken(path string) (handoff.Token, error) {
	file, err := os.Open(path)
	if err != nil {
		return handoff.Token{}, err
	}
	defer file.Close()
	var buffer [handoff.TokenSize + 1]byte
	n, err := file.Read(buffer[:])
	if err != nil {
		return handoff.Token{}, fmt.Errorf("read %s: %w", path, err)
	}
	token, err := handoff.ParseToken(buffer[:n])
	if err != nil {
		return handoff.Token{}, fmt.Errorf("%s: %w", path, err)
	}
	return token, nil
}

// takeOver makes this process the successor of the generation that serves at Options.Socket, if there is one.
func (g *Generation) takeOver(ctx context.Context) error {
	for try := 1; ; try++ {
		err := g.tryTakeOver(ctx)
		if err == nil || errors.Is(err, errNobody) {
			return nil
		}
		if try == knockTries || !isPassing(err) {
			return err
		}
		g.disinherit()
		select {
		case <-time.After(knockPause): // nothing tells when the next generation has opened its door
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (g *Generation) tryTakeOver(ctx context.Context) error {
	conn, token, err := knock(g.options.Socket)
	if err != nil {
		return err
	}
	g.log.Info("taking over", "socket", g.options.Socket)
	err = g.inherit(ctx, conn, token)
	if welcomed := g.predecessor.pid != 0; welcomed && isGone(err) {
		g.predecessorDied(err)
		return nil
	}
	return err
}

// isPassing reports whether a generation that was found perhaps has just been replaced or stopped, or its token used: another try
// may find the next one.
func isPassing(err error) bool {
	var refused *handoff.RefusedError
	if errors.As(err, &refused) {
		return refused.Reason == handoff.ReasonToken || refused.Reason == handoff.ReasonStopped
	}
	return isGone(err) || errors.Is(err, fs.ErrNotExist)
}

// handOverTo is an upgrade to a visitor.
func (g *Generation) handOverTo(ctx context.Context, v *visitor, r *record) error {
	if err := g.awaitPredecessor(ctx); err != nil {
		v.dismiss(handoff.ReasonTimeout, err.Error())
		return err
	}
	if err := g.preflight(ctx); err != nil {
		v.dismiss(handoff.ReasonFailed, err.Error())
		return err
	}
	g.log.Info("being taken over", "generation", g.number, "candidate", v.pid())
	r.enter(&r.report.Starting)
	err := (&attempt{Generation: g, record: r, session: v.session, candidate: v, hello: visitorHelloTimeout}).run(ctx, g.door.tokens, g.door.token)
	if err != nil {
		g.afterFailure()
		if err := g.door.restore(ctx); err != nil {
			g.log.Error("cannot be taken over", "error", err)
		}
	}
	return err
}
