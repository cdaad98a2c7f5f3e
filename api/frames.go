package api

import (
	"encoding/binary"
	"math"

	"letterlock/chat"
)

// The frames of the live connection, as spec/frames.md lays them out: type u8, length u32, payload. This file writes and reads them,
// for server and clients alike. What the parsers return points into their input.

// Sizes of what conversations hold, in bytes.
const (
	MaxMessage = 68 << 10 // an application message: 64 KiB of content and what MLS adds
	MaxCommit  = 1 << 20
	MaxWelcome = 4 << 20
	MaxExtra   = 64 << 10 // beside an entry's body: a slot announcement

	MaxClientFrames = 256 << 10                     // one WebSocket message from a client
	MaxServerFrames = MaxCommit + MaxExtra + 64<<10 // one from the server
	maxDetail       = 512
)

// MaxExpires is the latest expiry of a message, ms since 1970: as far as 32 bits of seconds reach, as MIMI content has them.
const MaxExpires = (1<<32 - 1) * 1000

// FrameType says what a frame is.
type FrameType uint8

// The frames.
const (
	FrameSubscribe    FrameType = 0x01
	FrameSubscribeAll FrameType = 0x02
	FrameSend         FrameType = 0x03
	FramePing         FrameType = 0x04
	FrameUnsubscribe  FrameType = 0x05
	FrameSendExpiring FrameType = 0x06

	FrameEntry   FrameType = 0x81
	FrameAck     FrameType = 0x82
	FrameNack    FrameType = 0x83
	FrameWoken   FrameType = 0x84
	FramePong    FrameType = 0x85
	FrameProblem FrameType = 0x86
	FrameLive    FrameType = 0x87
	FrameEnded   FrameType = 0x88
)

// Frame is one frame of either direction: the fields that its type names are set.
type Frame struct {
	Type         FrameType
	Request      uint32              // send, ping; ack, nack, pong
	Conversation chat.ConversationID // subscribe, unsubscribe, send; woken, live, ended
	Seq          uint64              // subscribe: after; ack, woken, live
	OwnByAck     bool                // subscribe
	Dedup        [16]byte            // send
	Message      []byte              // send
	Expires      int64               // send expiring
	Epoch        uint64              // ack
	At           int64               // ack
	Kind         chat.Kind           // nack, problem, ended
	Detail       string              // nack, problem, ended
	Entry        Entry               // entry
}

const (
	frameHead = 5
	idSize    = len(chat.ConversationID{})

	subscribeSize   = idSize + 8 + 1
	sendHead        = 4 + idSize + 16
	entryHead       = idSize + 8 + 1 + 1 + 8 + 8 + 4
	ackSize         = 4 + 8 + 8 + 8
	conversationSeq = idSize + 8

	flagOwnByAck  = 1
	flagTombstone = 1
	flagExpired   = 2 // with flagTombstone only
)

// Append writes the frame after b. It must be of a known type and within the limits.
func (f *Frame) Append(b []byte) []byte {
	start := len(b)
	b = append(b, byte(f.Type), 0, 0, 0, 0)
	switch f.Type {
	case FrameSubscribe:
		b = append(b, f.Conversation[:]...)
		b = binary.BigEndian.AppendUint64(b, f.Seq)
		b = append(b, flag(f.OwnByAck, flagOwnByAck))
	case FrameUnsubscribe:
		b = append(b, f.Conversation[:]...)
	case FrameSend:
		b = binary.BigEndian.AppendUint32(b, f.Request)
		b = append(b, f.Conversation[:]...)
		b = append(b, f.Dedup[:]...)
		b = append(b, f.Message...)
	case FrameSendExpiring:
		b = binary.BigEndian.AppendUint32(b, f.Request)
		b = append(b, f.Conversation[:]...)
		b = append(b, f.Dedup[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(f.Expires))
		b = append(b, f.Message...)
	case FramePing, FramePong:
		b = binary.BigEndian.AppendUint32(b, f.Request)
	case FrameEntry:
		b = appendEntry(b, &f.Entry)
	case FrameAck:
		b = binary.BigEndian.AppendUint32(b, f.Request)
		b = binary.BigEndian.AppendUint64(b, f.Seq)
		b = binary.BigEndian.AppendUint64(b, f.Epoch)
		b = binary.BigEndian.AppendUint64(b, uint64(f.At))
	case FrameNack:
		b = binary.BigEndian.AppendUint32(b, f.Request)
		b = appendProblem(b, f.Kind, f.Detail)
	case FrameWoken, FrameLive:
		b = append(b, f.Conversation[:]...)
		b = binary.BigEndian.AppendUint64(b, f.Seq)
	case FrameEnded:
		b = append(b, f.Conversation[:]...)
		b = appendProblem(b, f.Kind, f.Detail)
	case FrameProblem:
		b = appendProblem(b, f.Kind, f.Detail)
	}
	binary.BigEndian.PutUint32(b[start+1:], uint32(len(b)-start-frameHead))
	return b
}

// AppendEntryFrame writes an entry frame after b without copying the entry into a Frame.
func AppendEntryFrame(b []byte, e *Entry) []byte {
	b = append(b, byte(FrameEntry))
	b = binary.BigEndian.AppendUint32(b, uint32(EntryFrameSize(e)-frameHead))
	return appendEntry(b, e)
}

// EntryFrameSize is the number of bytes that AppendEntryFrame writes.
func EntryFrameSize(e *Entry) int { return frameHead + entryHead + len(e.Extra) + len(e.Body) }

func appendEntry(b []byte, e *Entry) []byte {
	b = append(b, e.Conversation[:]...)
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	b = append(b, byte(e.Kind), flag(e.Tombstone, flagTombstone)|flag(e.Expired, flagExpired))
	b = binary.BigEndian.AppendUint64(b, e.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(e.At))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Extra)))
	b = append(b, e.Extra...)
	return append(b, e.Body...)
}

func appendProblem(b []byte, kind chat.Kind, detail string) []byte {
	b = append(b, byte(len(kind)))
	b = append(b, kind...)
	if len(detail) > maxDetail {
		detail = detail[:maxDetail]
	}
	return append(b, detail...)
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

var errFrame = chat.Errorf(chat.Invalid, "the bytes are not frames as spec/frames.md has them")

// NextFrame reads the first frame of a WebSocket message and returns the bytes after it.
func NextFrame(b []byte) (f Frame, rest []byte, err error) {
	if len(b) < frameHead {
		return f, nil, errFrame
	}
	n := binary.BigEndian.Uint32(b[1:])
	if uint64(n) > uint64(len(b)-frameHead) {
		return f, nil, errFrame
	}
	f.Type = FrameType(b[0])
	p, rest := b[frameHead:frameHead+int(n)], b[frameHead+int(n):]
	if !f.read(p) {
		return Frame{}, nil, errFrame
	}
	return f, rest, nil
}

// read takes a payload apart. Every length is checked before its bytes are touched; nothing is allocated but a detail's text.
func (f *Frame) read(p []byte) bool {
	switch f.Type {
	case FrameSubscribe:
		if len(p) != subscribeSize || p[subscribeSize-1] > flagOwnByAck {
			return false
		}
		f.Conversation, f.Seq, f.OwnByAck = [16]byte(p), binary.BigEndian.Uint64(p[idSize:]), p[subscribeSize-1] == flagOwnByAck
		return f.Seq <= math.MaxInt64
	case FrameSubscribeAll:
		return len(p) == 0
	case FrameUnsubscribe:
		if len(p) != idSize {
			return false
		}
		f.Conversation = [16]byte(p)
		return true
	case FrameSend:
		if len(p) <= sendHead || len(p) > sendHead+MaxMessage {
			return false
		}
		f.Request, f.Conversation, f.Dedup = binary.BigEndian.Uint32(p), [16]byte(p[4:]), [16]byte(p[4+idSize:])
		f.Message = p[sendHead:]
		return true
	case FrameSendExpiring:
		if len(p) <= sendHead+8 || len(p) > sendHead+8+MaxMessage {
			return false
		}
		f.Request, f.Conversation, f.Dedup = binary.BigEndian.Uint32(p), [16]byte(p[4:]), [16]byte(p[4+idSize:])
		f.Expires, f.Message = int64(binary.BigEndian.Uint64(p[sendHead:])), p[sendHead+8:]
		return f.Expires > 0 && f.Expires <= MaxExpires
	case FramePing, FramePong:
		if len(p) != 4 {
			return false
		}
		f.Request = binary.BigEndian.Uint32(p)
		return true
	case FrameEntry:
		return readEntry(p, &f.Entry)
	case FrameAck:
		if len(p) != ackSize {
			return false
		}
		f.Request, f.Seq = binary.BigEndian.Uint32(p), binary.BigEndian.Uint64(p[4:])
		f.Epoch, f.At = binary.BigEndian.Uint64(p[12:]), int64(binary.BigEndian.Uint64(p[20:]))
		return f.At >= 0
	case FrameNack:
		if len(p) < 4 {
			return false
		}
		f.Request = binary.BigEndian.Uint32(p)
		return f.readProblem(p[4:])
	case FrameWoken, FrameLive:
		if len(p) != conversationSeq {
			return false
		}
		f.Conversation, f.Seq = [16]byte(p), binary.BigEndian.Uint64(p[idSize:])
		return true
	case FrameEnded:
		if len(p) < idSize {
			return false
		}
		f.Conversation = [16]byte(p)
		return f.readProblem(p[idSize:])
	case FrameProblem:
		return f.readProblem(p)
	}
	return false
}

func readEntry(p []byte, e *Entry) bool {
	if len(p) < entryHead || p[idSize+9] > flagTombstone|flagExpired || p[idSize+9] == flagExpired {
		return false
	}
	e.Conversation, e.Seq = [16]byte(p), binary.BigEndian.Uint64(p[idSize:])
	e.Kind, e.Tombstone, e.Expired = EntryKind(p[idSize+8]), p[idSize+9] != 0, p[idSize+9]&flagExpired != 0
	e.Epoch, e.At = binary.BigEndian.Uint64(p[idSize+10:]), int64(binary.BigEndian.Uint64(p[idSize+18:]))
	extra, p := binary.BigEndian.Uint32(p[idSize+26:]), p[entryHead:]
	if uint64(extra) > uint64(len(p)) || extra > MaxExtra || len(p)-int(extra) > MaxCommit || e.At < 0 {
		return false
	}
	if extra > 0 {
		e.Extra = p[:extra:extra]
	}
	e.Body = p[extra:]
	return true
}

func (f *Frame) readProblem(p []byte) bool {
	if len(p) < 1 || len(p) < 1+int(p[0]) || len(p) > 1+int(p[0])+maxDetail {
		return false
	}
	f.Kind, f.Detail = chat.Kind(p[1:1+p[0]]), string(p[1+int(p[0]):])
	return true
}
