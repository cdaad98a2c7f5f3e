package bench

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/gobwas/ws"

	"letterlock/api"
	"letterlock/chat"
)

// FuzzNext: whatever a server sends, what next returns is bounded, and its frames are read or refused.
func FuzzNext(f *testing.F) {
	entry := api.Frame{Type: api.FrameEntry, Entry: api.Entry{Seq: 1, Kind: api.KindMessage, Body: []byte("body")}}
	f.Add(ws.MustCompileFrame(ws.NewBinaryFrame(entry.Append(nil))))
	f.Add(ws.MustCompileFrame(ws.NewPingFrame([]byte("there?"))))
	f.Add(ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1001, "unavailable"))))
	f.Add([]byte{0x82, 127, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, sent []byte) {
		client, server := net.Pipe()
		defer client.Close()
		go func() {
			server.Write(sent)
			server.Close()
		}()
		go io.Copy(io.Discard, server) // pongs
		l := &live{conn: client}
		for {
			b, err := l.next()
			if err != nil {
				return
			}
			if len(b) > api.MaxServerFrames {
				t.Fatalf("a message of %d bytes", len(b))
			}
			for len(b) > 0 && err == nil {
				_, b, err = api.NextFrame(b)
			}
		}
	})
}

func TestInMessagesKeepsOrderAndLimit(t *testing.T) {
	var frames []api.Frame
	for i := range 40 {
		frames = append(frames, api.Frame{Type: api.FrameSend, Request: uint32(i), Message: make([]byte, 1+i*1700)})
	}
	var got []uint32
	for part := range inMessages(frames) {
		var b []byte
		for i := range part {
			got = append(got, part[i].Request)
			b = part[i].Append(b)
		}
		if len(b) > api.MaxClientFrames {
			t.Errorf("%d frames have %d bytes", len(part), len(b))
		}
	}
	for i := range frames {
		if i >= len(got) || got[i] != uint32(i) {
			t.Fatalf("frames came as %v", got)
		}
	}
}

func TestParallelStopsAtTheFirstError(t *testing.T) {
	var began atomic.Int64
	wrong := errors.New("wrong")
	err := parallel(t.Context(), 1000, 4, nil, func(ctx context.Context, i int) error {
		if began.Add(1) == 10 {
			return wrong
		}
		return nil
	})
	if err != wrong || began.Load() > 20 {
		t.Errorf("%v after %d", err, began.Load())
	}
	if err := parallel(t.Context(), 100, 7, nil, func(context.Context, int) error { return nil }); err != nil {
		t.Error(err)
	}
}

// TestRefusedIsAnError: a problem, a refusal and an ended subscription are never taken for silence.
func TestRefusedIsAnError(t *testing.T) {
	for _, typ := range []api.FrameType{api.FrameProblem, api.FrameNack, api.FrameEnded} {
		f := api.Frame{Type: typ, Kind: chat.Blocked, Detail: "not now"}
		client, server := net.Pipe()
		go io.Copy(server, bytes.NewReader(ws.MustCompileFrame(ws.NewBinaryFrame(f.Append(nil)))))
		l := &live{conn: client}
		if err := l.receive(func(*api.Frame) error { return nil }); !chat.Is(err, chat.Blocked) {
			t.Errorf("frame %#x: %v", typ, err)
		}
		client.Close()
	}
}
