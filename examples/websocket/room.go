package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/segue-go/segue/listener"
	"github.com/segue-go/segue/restart"
)

const (
	// maxMembers is how many a room has at most: as many as travel in one step.
	maxMembers = min(250, restart.MaxConns)
	// maxMessage is how many bytes a message may have. What a room's members have said in part, and what they have not read yet, has to
	// fit into restart.MaxConnState; a room that has more to carry does not move, and its members have to come back.
	maxMessage = 1 << 10
)

// member is one WebSocket in a room.
type member struct {
	name string
	tape *tape
	ws   *websocket.Conn
	idle chan struct{} // closed: nobody reads from it
}

func newMember(name string, tape *tape, ws *websocket.Conn) *member {
	ws.SetReadLimit(maxMessage)
	return &member{name: name, tape: tape, ws: ws, idle: make(chan struct{})}
}

// room is a set of members who hear the same in the same order. It is in one generation at a time.
type room struct {
	name string

	mu      sync.Mutex
	members map[*member]bool
	gone    chan struct{} // closed: it has been handed on
	follows chan struct{} // closed: another one has been handed on, which is to arrive first; nil if there is none
}

func newRoom(name string) *room {
	return &room{name: name, members: make(map[*member]bool), gone: make(chan struct{})}
}

// join adds members. It reports false if they are too many.
func (r *room) join(members []*member) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.members)+len(members) > maxMembers {
		return false
	}
	for _, m := range members {
		r.members[m] = true
	}
	return true
}

// serve passes on what a member says, until it leaves or the room does.
func (r *room) serve(m *member) {
	for {
		_, text, err := m.ws.Read(context.Background())
		if err != nil {
			break
		}
		r.say(fmt.Appendf(nil, "%s: %s", m.name, text))
	}
	close(m.idle)
	if m.tape.interrupted() {
		<-r.gone // the connection is the room's until then
		return
	}
	_ = m.ws.CloseNow()
}

// leave reports whether the room is empty then.
func (r *room) leave(m *member) (empty bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.members, m)
	return len(r.members) == 0
}

// say tells everybody. The lock makes the order the same for all, and no Write waits for a member.
func (r *room) say(text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for m := range r.members {
		_ = m.ws.Write(context.Background(), websocket.MessageText, text) // the reader of one that has failed finds out
	}
}

// luggage is a room's state on its way to the next generation.
type luggage struct {
	Room    string
	Members []memberLuggage // in the order of the connections
}

type memberLuggage struct {
	Name string
	Out  []byte // what was said and not written yet; it may begin in the middle of a frame
}

// handOn hands the room on to the successor as a whole, or says goodbye.
func (r *room) handOn(gen *restart.Generation) {
	defer close(r.gone)
	if r.follows != nil {
		<-r.follows
	}
	r.mu.Lock()
	var members []*member
	for m := range r.members {
		members = append(members, m)
	}
	r.mu.Unlock()
	// When the last one is idle, everything that was read whole has been said, and nothing is said any more.
	for _, m := range members {
		m.tape.Interrupt()
	}
	for _, m := range members {
		<-m.idle
	}
	packed := luggage{Room: r.name}
	var conns []*listener.Conn
	for _, m := range members {
		if !m.tape.interrupted() {
			continue // it has left
		}
		_ = m.ws.CloseNow() // tape keeps the connection
		conn, out, ok := m.tape.takeOut()
		if !ok {
			continue
		}
		conns = append(conns, conn)
		packed.Members = append(packed.Members, memberLuggage{Name: m.name, Out: out})
	}
	if len(conns) == 0 {
		return
	}
	if err := gen.Detach(roomKind, encode(packed), conns...); err != nil {
		slog.Info("room ends", "room", r.name, "members", len(conns), "error", err)
		goodbye(conns, packed)
	}
}

// goodbye asks members to come back to whoever serves now: it is a close frame with code 1012, service restart.
func goodbye(conns []*listener.Conn, packed luggage) {
	var saying sync.WaitGroup
	for i, conn := range conns {
		saying.Go(func() {
			_ = conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
			_, _ = conn.Write(append(packed.Members[i].Out, 0x88, 2, 1012>>8, 1012&0xff))
			_ = conn.Close()
		})
	}
	saying.Wait()
}
