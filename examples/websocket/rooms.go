package main

import (
	"bytes"
	"context"
	"encoding/gob"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/segue-go/segue/listener"
	"github.com/segue-go/segue/restart"
)

const (
	roomKind = "room"
	maxName  = 64
	// arrivalTimeout is how long after the commit a room of the predecessor is waited for. They come at once, or go back.
	arrivalTimeout = 6 * time.Second
)

// rooms is all rooms of this generation.
type rooms struct {
	gen *restart.Generation

	mu       sync.Mutex
	byName   map[string]*room
	leaving  bool                     // they are being handed on
	expected map[string]chan struct{} // rooms that the predecessor had; closed when they have arrived
}

func newRooms(gen *restart.Generation) *rooms {
	return &rooms{gen: gen, byName: make(map[string]*room), expected: make(map[string]chan struct{})}
}

// chat is a member's HTTP request.
func (rs *rooms) chat(w http.ResponseWriter, r *http.Request) {
	roomName, name := r.FormValue("room"), r.FormValue("name")
	if roomName == "" || name == "" || len(roomName) > maxName || len(name) > maxName {
		http.Error(w, "want ?room= and &name=, up to 64 bytes each", http.StatusBadRequest)
		return
	}
	if !rs.await(r.Context(), roomName) {
		return
	}
	taking := &hijack{ResponseWriter: w, take: func() (*tape, error) {
		conn, err := restart.Hijack(w, r)
		if err != nil {
			return nil, err
		}
		return newTape(conn, nil), nil
	}}
	ws, err := websocket.Accept(taking, r, nil) // which answers if it fails
	if err != nil {
		return
	}
	rs.serve(roomName, newMember(name, taking.tape, ws))
}

// await waits until it is decided where a room is. On probation it may still be the predecessor's.
func (rs *rooms) await(ctx context.Context, roomName string) bool {
	select {
	case <-rs.gen.Serving():
	case <-ctx.Done():
		return false
	}
	rs.mu.Lock()
	arrived := rs.expected[roomName]
	rs.mu.Unlock()
	if arrived == nil {
		return true
	}
	late := time.NewTimer(arrivalTimeout)
	defer late.Stop()
	select {
	case <-arrived:
	case <-late.C:
		rs.forget(roomName)
	case <-ctx.Done():
		return false
	}
	return true
}

// forget ends the waiting for a room.
func (rs *rooms) forget(roomName string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if arrived := rs.expected[roomName]; arrived != nil {
		close(arrived)
		delete(rs.expected, roomName)
	}
}

// join lets members join a room, which it makes if there is none. If this generation leaves, that is a room of their own, which
// follows the one that has left.
func (rs *rooms) join(roomName string, members []*member) (r *room, late, full bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r = rs.byName[roomName]
	if rs.leaving {
		left := r
		r = newRoom(roomName)
		if left != nil {
			r.follows = left.gone
		}
		r.join(members)
		return r, true, false
	}
	if r == nil {
		r = newRoom(roomName)
		rs.byName[roomName] = r
	}
	return r, false, !r.join(members)
}

// serve returns when this generation has nothing to do with the members any more.
func (rs *rooms) serve(roomName string, members ...*member) {
	r, late, full := rs.join(roomName, members)
	rs.forget(roomName) // those who wait for it find it complete
	if full {
		for _, m := range members {
			_ = m.ws.Close(websocket.StatusTryAgainLater, "the room is full")
		}
		return
	}
	if late {
		go r.handOn(rs.gen)
	}
	var serving sync.WaitGroup
	for _, m := range members {
		serving.Go(func() {
			r.serve(m)
			rs.leave(r, m)
		})
	}
	serving.Wait()
}

// leave takes a member out, and forgets a room that is empty.
func (rs *rooms) leave(r *room, m *member) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if empty := r.leave(m); empty && rs.byName[r.name] == r && !rs.leaving {
		delete(rs.byName, r.name)
	}
}

// adopt receives a room from the predecessor, or one back that the successor did not take.
func (rs *rooms) adopt(_ context.Context, conns []*listener.Conn, state []byte) {
	var packed luggage
	if err := gob.NewDecoder(bytes.NewReader(state)).Decode(&packed); err != nil || len(packed.Members) != len(conns) {
		slog.Error("cannot adopt a room", "members", len(conns), "error", err)
		return
	}
	if conns[0].Refused() {
		slog.Warn("room was not taken: its members have to come back", "room", packed.Room, "members", len(conns))
		goodbye(conns, packed)
		return
	}
	var members []*member
	for i, conn := range conns {
		tape, ws, err := revive(conn, packed.Members[i].Out)
		if err != nil {
			slog.Error("cannot revive a member", "error", err)
			continue
		}
		members = append(members, newMember(packed.Members[i].Name, tape, ws))
	}
	slog.Info("room has arrived", "room", packed.Room, "members", len(members))
	rs.serve(packed.Room, members...)
}

// handOn hands all rooms on, at the beginning of the end.
func (rs *rooms) handOn() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.leaving = true
	for _, r := range rs.byName {
		go r.handOn(rs.gen)
	}
}

func (rs *rooms) encodeNames() ([]byte, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var names []string
	for name := range rs.byName {
		names = append(names, name)
	}
	slices.Sort(names)
	return encode(names), nil
}

func (rs *rooms) decodeNames(state []byte) error {
	var names []string
	if err := gob.NewDecoder(bytes.NewReader(state)).Decode(&names); err != nil {
		return err
	}
	for _, name := range names {
		rs.expected[name] = make(chan struct{})
	}
	return nil
}

// encode is for types that gob can encode.
func encode(value any) []byte {
	var b bytes.Buffer
	_ = gob.NewEncoder(&b).Encode(value)
	return b.Bytes()
}
