package api

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"letterlock/chat"
)

// everyFrame is one of each type.
func everyFrame() []Frame {
	c := chat.ConversationID{1, 2, 3}
	return []Frame{
		{Type: FrameSubscribe, Conversation: c, Seq: 77, OwnByAck: true},
		{Type: FrameSubscribe, Conversation: c},
		{Type: FrameSubscribeAll},
		{Type: FrameSend, Request: 9, Conversation: c, Dedup: [16]byte{5}, Message: []byte("message")},
		{Type: FrameSendExpiring, Request: 9, Conversation: c, Dedup: [16]byte{5}, Expires: 1700000000000, Message: []byte("message")},
		{Type: FramePing, Request: 1 << 31},
		{Type: FrameUnsubscribe, Conversation: c},
		{Type: FrameEntry, Entry: Entry{Conversation: c, Seq: 4, Kind: KindCommit, Epoch: 3, At: 1700000000000, Body: []byte("commit"), Extra: []byte("slot")}},
		{Type: FrameEntry, Entry: Entry{Conversation: c, Seq: 5, Kind: KindMessage, Epoch: 4, Tombstone: true, Body: make([]byte, 32)}},
		{Type: FrameEntry, Entry: Entry{Conversation: c, Seq: 6, Kind: KindMessage, Epoch: 4, Tombstone: true, Expired: true, Body: make([]byte, 32)}},
		{Type: FrameAck, Request: 9, Seq: 5, Epoch: 4, At: 1700000000001},
		{Type: FrameNack, Request: 9, Kind: chat.StaleEpoch, Detail: "made for epoch 3, the conversation is in 4"},
		{Type: FrameWoken, Conversation: c, Seq: 5},
		{Type: FramePong, Request: 2},
		{Type: FrameProblem, Kind: chat.Invalid, Detail: ""},
		{Type: FrameLive, Conversation: c, Seq: 6},
		{Type: FrameEnded, Conversation: c, Kind: chat.NotFound, Detail: "no member"},
	}
}

func TestFramesRoundTrip(t *testing.T) {
	var all []byte
	for _, f := range everyFrame() {
		all = f.Append(all)
	}
	rest := all
	for _, want := range everyFrame() {
		var got Frame
		var err error
		if got, rest, err = NextFrame(rest); err != nil {
			t.Fatalf("%#x: %v", want.Type, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
	if len(rest) != 0 {
		t.Fatalf("%d bytes left", len(rest))
	}
	for _, f := range everyFrame() {
		if f.Type == FrameEntry && !bytes.Equal(AppendEntryFrame(nil, &f.Entry), f.Append(nil)) {
			t.Fatal("the two ways to write an entry differ")
		}
	}
}

func TestFramesRefused(t *testing.T) {
	head := func(typ FrameType, n int, p ...byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{byte(typ)}, uint32(n)), p...)
	}
	at := func(f Frame, i int, v byte) []byte { // one byte of the payload changed
		b := f.Append(nil)
		b[frameHead+i] = v
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":              {},
		"half a head":          {3, 0, 0},
		"unknown type":         head(0x40, 0),
		"type zero":            head(0, 0),
		"length beyond bytes":  head(FramePing, 4, 1, 2, 3),
		"length of 4 GB":       {byte(FrameSend), 0xff, 0xff, 0xff, 0xff},
		"ping too short":       head(FramePing, 3, 1, 2, 3),
		"ping too long":        head(FramePing, 5, 1, 2, 3, 4, 5),
		"empty message":        head(FrameSend, sendHead, make([]byte, sendHead)...),
		"message too large":    head(FrameSend, sendHead+MaxMessage+1, make([]byte, sendHead+MaxMessage+1)...),
		"subscribe-all filled": head(FrameSubscribeAll, 1, 0),
		"reserved flag":        at(Frame{Type: FrameSubscribe}, subscribeSize-1, 2),
		"after beyond int64":   at(Frame{Type: FrameSubscribe}, idSize, 0x80),
		"entry flag":           at(Frame{Type: FrameEntry}, idSize+9, 2),
		"unknown entry flag":   at(Frame{Type: FrameEntry}, idSize+9, 4),
		"no expiry":            at(Frame{Type: FrameSendExpiring, Message: []byte("m")}, 0, 0),
		"negative expiry":      at(Frame{Type: FrameSendExpiring, Message: []byte("m"), Expires: 1}, sendHead, 0x80),
		"expiry too late":      at(Frame{Type: FrameSendExpiring, Message: []byte("m"), Expires: MaxExpires}, sendHead+6, 0xff),
		"expiring and empty":   head(FrameSendExpiring, sendHead+8, make([]byte, sendHead+8)...),
		"negative time":        at(Frame{Type: FrameEntry}, idSize+18, 0x80),
		"extra beyond entry":   at(Frame{Type: FrameEntry}, idSize+26+3, 1),
		"extra too large":      at(Frame{Type: FrameEntry, Entry: Entry{Body: make([]byte, MaxExtra+10)}}, idSize+26+1, 2),
		"body too large":       AppendEntryFrame(nil, &Entry{Body: make([]byte, MaxCommit+1)}),
		"kind beyond frame":    head(FrameProblem, 3, 5, 'a', 'b'),
		"no kind":              head(FrameProblem, 0),
		"detail too long":      head(FrameProblem, 1+maxDetail+1, append([]byte{0}, make([]byte, maxDetail+1)...)...),
	} {
		if f, _, err := NextFrame(b); err == nil {
			t.Errorf("%s: accepted as %+v", name, f)
		}
	}
	long := Frame{Type: FrameProblem, Kind: chat.Invalid, Detail: strings.Repeat("x", 5000)}
	if f, _, err := NextFrame(long.Append(nil)); err != nil || len(f.Detail) != maxDetail {
		t.Errorf("a long detail is to be cut: %d, %v", len(f.Detail), err)
	}
}

// seeds checks that a fuzz test's committed corpus is there: a fuzz test without one passes and tests nothing.
func seeds(t *testing.T, name string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no seeds in testdata/fuzz/%s: %v", name, err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || !bytes.HasPrefix(b, []byte("go test fuzz v1\n")) {
			t.Fatalf("%s is no seed: %v", f, err)
		}
	}
}

func TestFuzzSeedsAreThere(t *testing.T) { seeds(t, "FuzzNextFrame") }

func FuzzNextFrame(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			frame, rest, err := NextFrame(b)
			if err != nil {
				return
			}
			if again := frame.Append(nil); !bytes.Equal(again, b[:len(b)-len(rest)]) {
				t.Fatalf("accepted frame is written back as other bytes:\n%x\n%x", b[:len(b)-len(rest)], again)
			}
			b = rest
		}
	})
}
