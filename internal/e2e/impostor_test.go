//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"

	"github.com/segue-go/segue/handoff"
)

// An impostor is a successor that breaks the protocol. It is this test binary, found under a name with this prefix through
// the link that the service was started by.
const impostorPrefix = "impostor-"

// impostors act on the predecessor's socket with its token. What they return does not matter; whether they do decides
// between exit and hang.
var impostors = map[string]func(ctx context.Context, i *impostor) error{
	"garbage": func(_ context.Context, i *impostor) error {
		_, err := i.conn.Write([]byte("\xde\xad\xbe\xef\xff and so on, and so on"))
		return errors.Join(err, hang())
	},
	"stranger": func(ctx context.Context, i *impostor) error {
		other, err := handoff.ParseToken([]byte("0123456789abcdef"))
		if err != nil {
			return err
		}
		_, err = i.session.Connect(ctx, other)
		return errors.Join(err, hang())
	},
	"liar": func(ctx context.Context, i *impostor) error { // claims to be somebody else's process
		err := i.session.Send(ctx, &handoff.Hello{Version: 1, Token: i.token, PID: 1})
		return errors.Join(err, hang())
	},
	"mute": func(context.Context, *impostor) error { return hang() },
	"no-ack": func(ctx context.Context, i *impostor) error {
		_, err := i.session.Connect(ctx, i.token)
		return errors.Join(err, hang())
	},
	"wrong-ack": func(ctx context.Context, i *impostor) error {
		if _, err := i.session.Connect(ctx, i.token); err != nil {
			return err
		}
		return errors.Join(i.session.Send(ctx, &handoff.Ack{Offer: 77}), hang())
	},
	"deaf": func(ctx context.Context, i *impostor) error { // never answers PING
		if err := i.becomeReady(ctx); err != nil {
			return err
		}
		return hang()
	},
	"deaf-on-probation": func(ctx context.Context, i *impostor) error {
		if err := i.becomeGranted(ctx); err != nil {
			return err
		}
		return hang()
	},
	"garbage-on-probation": func(ctx context.Context, i *impostor) error {
		if err := i.becomeGranted(ctx); err != nil {
			return err
		}
		_, err := i.conn.Write([]byte(strings.Repeat("\xff", 64)))
		return errors.Join(err, hang())
	},
	"hangs-up-on-probation": func(ctx context.Context, i *impostor) error {
		if err := i.becomeGranted(ctx); err != nil {
			return err
		}
		return errors.Join(i.session.Close(), hang())
	},
	"commits-too-early": func(ctx context.Context, i *impostor) error {
		if err := i.becomeReady(ctx); err != nil {
			return err
		}
		return errors.Join(i.session.Send(ctx, &handoff.Commit{}), hang())
	},
	"never-commits": func(ctx context.Context, i *impostor) error {
		if err := i.becomeGranted(ctx); err != nil {
			return err
		}
		for {
			if err := i.pong(ctx); err != nil {
				return errors.Join(err, hang())
			}
		}
	},
	"commits-and-dies": func(ctx context.Context, i *impostor) error {
		if err := i.askForCommit(ctx); err != nil {
			return err
		}
		for {
			message, err := i.session.Receive(ctx)
			if err != nil {
				return err
			}
			if _, ok := message.(*handoff.Committed); ok {
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
	},
	// These become the successor for good, and do not take connections as they should.
	"refuses-connections": func(ctx context.Context, i *impostor) error {
		return i.serveOffers(ctx, func(offer *handoff.Offer) error {
			ack := &handoff.Ack{Offer: offer.ID, Credit: room}
			for _, entry := range offer.Entries {
				ack.Results = append(ack.Results, handoff.Result{ID: entry.ID, Reason: handoff.ReasonFailed})
			}
			return i.session.Send(ctx, ack)
		})
	},
	"ignores-connections": func(ctx context.Context, i *impostor) error {
		return i.serveOffers(ctx, func(*handoff.Offer) error { return nil })
	},
	"hangs-on-connections": func(ctx context.Context, i *impostor) error {
		return i.serveOffers(ctx, func(*handoff.Offer) error { return hang() })
	},
	// What a plain tableflip program does: it never heard of the upgrade socket, and says that it is ready.
	"tableflip": func(_ context.Context, i *impostor) error { return errors.Join(i.upgrader.Ready(), hang()) },
	"stopped": func(context.Context, *impostor) error {
		stopSelf()
		return hang()
	},
}

type impostor struct {
	conn    *net.UnixConn
	session *handoff.Session
	token   handoff.Token

	upgrader *tableflip.Upgrader
}

func impostorName() string {
	target, err := os.Readlink(os.Args[0])
	if err != nil {
		return ""
	}
	name, found := strings.CutPrefix(filepath.Base(target), impostorPrefix)
	if !found {
		return ""
	}
	return name
}

func playImpostor(name string) error {
	act, known := impostors[name]
	if !known {
		return fmt.Errorf("no impostor %q", name)
	}
	upgrader, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return err
	}
	socket, err := upgrader.Fds.File("segue-socket")
	if err != nil || socket == nil {
		return fmt.Errorf("no socket: %w", err)
	}
	secret, err := upgrader.Fds.File("segue-token")
	if err != nil || secret == nil {
		return fmt.Errorf("no token: %w", err)
	}
	var buffer [handoff.TokenSize]byte
	if _, err := secret.Read(buffer[:]); err != nil {
		return err
	}
	conn, err := net.FileConn(socket)
	if err != nil {
		return err
	}
	if name != "tableflip" && !strings.HasSuffix(name, "-connections") {
		// Only conn is to hold the socket, so that closing it hangs up; tableflip keeps another copy.
		upgrader.Stop()
		<-upgrader.Exit()
	}
	_ = socket.Close()
	i := &impostor{upgrader: upgrader, conn: conn.(*net.UnixConn), session: handoff.NewSession(conn.(*net.UnixConn))}
	if i.token, err = handoff.ParseToken(buffer[:]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return act(ctx, i)
}

// hang stays alive, as long as the test does at most.
func hang() error {
	<-time.After(time.Minute)
	return errors.New("nobody killed this impostor")
}

// becomeReady plays a good successor until READY.
func (i *impostor) becomeReady(ctx context.Context) error {
	if _, err := i.session.Connect(ctx, i.token); err != nil {
		return err
	}
	for more := true; more; {
		message, err := i.session.Receive(ctx)
		if err != nil {
			return err
		}
		offer, ok := message.(*handoff.Offer)
		if !ok {
			return handoff.Unexpected("OFFER", message)
		}
		ack := &handoff.Ack{Offer: offer.ID}
		for _, entry := range offer.Entries {
			ack.Results = append(ack.Results, handoff.Result{ID: entry.ID, Accepted: true})
		}
		if err := errors.Join(offer.Close(), i.session.Send(ctx, ack)); err != nil {
			return err
		}
		more = offer.More
	}
	return i.session.Send(ctx, &handoff.Ready{})
}

func (i *impostor) becomeGranted(ctx context.Context) error {
	if err := i.becomeReady(ctx); err != nil {
		return err
	}
	if err := i.pong(ctx); err != nil {
		return err
	}
	message, err := i.session.Receive(ctx)
	if _, ok := message.(*handoff.Grant); !ok {
		return fmt.Errorf("want GRANT, have %T, %w", message, err)
	}
	return nil
}

func (i *impostor) askForCommit(ctx context.Context) error {
	if err := i.becomeGranted(ctx); err != nil {
		return err
	}
	return i.session.Send(ctx, &handoff.Commit{})
}

func (i *impostor) pong(ctx context.Context) error {
	message, err := i.session.Receive(ctx)
	if err != nil {
		return err
	}
	ping, ok := message.(*handoff.Ping)
	if !ok {
		return handoff.Unexpected("PING", message)
	}
	return i.session.Send(ctx, &handoff.Pong{Number: ping.Number})
}

// room is the credit that an impostor gives for connections.
const room = 1 << 20

// serveOffers becomes the successor, which it proves to tableflip, and treats offers of connections as told. It has no room for
// any before the commit, so that what it does with them is no reason to roll back.
func (i *impostor) serveOffers(ctx context.Context, treat func(*handoff.Offer) error) error {
	if err := i.askForCommit(ctx); err != nil {
		return err
	}
	credit := uint32(0)
	for {
		message, err := i.session.Receive(ctx)
		if err != nil {
			return errors.Join(err, hang())
		}
		switch message := message.(type) {
		case *handoff.Committed:
			credit = room
			err = i.upgrader.Ready()
		case *handoff.Ping:
			err = i.session.Send(ctx, &handoff.Pong{Number: message.Number, Credit: credit})
		case *handoff.Offer:
			err = errors.Join(message.Close(), treat(message))
		}
		if err != nil {
			return errors.Join(err, hang())
		}
	}
}
