//go:build linux || darwin || freebsd

package handoff

import (
	"bytes"
	"os"
	"testing"
)

// What is read at once may end in the middle of a token: the descriptors beside it then wait for the rest of it, and those of the next offer
// for them.
func TestDescriptorsOfOffersThatAreReadInPieces(t *testing.T) {
	for _, split := range []int{0, 1, TokenSize / 2, TokenSize - 1, TokenSize} {
		before := openDescriptors(t)
		predecessor, successor := pair(t)
		from, to := NewSession(predecessor), NewSession(successor)
		to.body = 2 * readAhead
		var tokens TokenStore
		offers := make([]*Offer, 3)
		for i := range offers {
			file, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			token, err := tokens.Issue()
			if err != nil {
				t.Fatal(err)
			}
			entry := Entry{ID: 1, Kind: "file", Described: true, Descriptor: descriptor(t, file)}
			offers[i] = &Offer{ID: uint64(i + 1), Token: token, Count: 1, Entries: []Entry{entry}}
		}
		data := bytes.Repeat([]byte{'x'}, readAhead/2)
		offers[0].Entries[0].Data = data
		frame, _, _, err := from.encode(offers[0])
		if err != nil {
			t.Fatal(err)
		}
		offers[0].Entries[0].Data = bytes.Repeat(data, 2)[:len(data)+readAhead-split-len(frame)]
		for _, offer := range offers {
			if err := from.Send(bounded(t), offer); err != nil {
				t.Fatal(err)
			}
			offer.Close()
		}
		for i := range offers {
			message, err := to.Receive(bounded(t))
			if err != nil {
				t.Errorf("the first read ends with %d bytes of a token: offer %d: %v", split, i+1, err)
				break
			}
			message.(*Offer).Close()
		}
		from.Close()
		to.Close()
		if after := openDescriptors(t); before != after {
			t.Errorf("descriptors: want %d, have %d", before, after)
		}
	}
}
