package grant

import (
	"bytes"

	"letterlock/canon"
	"letterlock/chat"
)

// ExtensionType is the GroupContext extension that holds a Thread.
const ExtensionType = 0xF1A0

// The kinds of conversation. The kind never changes.
const (
	Private uint8 = 0 // admits no agent, has no slot
	Shared  uint8 = 1 // made for one partner
)

// MaxThread is the largest extension, in bytes.
const MaxThread = 16 << 10

// Thread is what a conversation's GroupContext says of permission: every member sees it, and it decides what is merged.
type Thread struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	Kind    uint8
	Host    string
	Partner string
	Grants  []Entry
}

// Entry is one live grant.
type Entry struct {
	_        struct{} `cbor:",toarray"`
	Grant    chat.GrantID
	Hash     Hash
	Account  chat.AccountID
	Handle   string
	Actions  chat.Actions
	AgentKey [32]byte
	Expiry   int64
}

// NewThread makes the extension of a new conversation; partner is empty for a private one.
func NewThread(host, partner string) Thread {
	t := Thread{Version: version, Host: host, Partner: partner}
	if partner != "" {
		t.Kind = Shared
	}
	return t
}

// Marshal writes the extension's data.
func (t Thread) Marshal() []byte { return canon.MustMarshal(t) }

// OpenThread reads the extension's data.
func OpenThread(data []byte) (Thread, error) {
	var t Thread
	if len(data) > MaxThread {
		return t, chat.Errorf(chat.TooLarge, "thread: larger than %d bytes", MaxThread)
	}
	if err := canon.Unmarshal(data, &t); err != nil {
		return t, chat.Wrap(chat.Invalid, err, "the conversation's letterlock extension cannot be read")
	}
	switch {
	case t.Version != version:
		return t, chat.Errorf(chat.Incompatible, "thread: version %d is not known here", t.Version)
	case chat.CheckHost(t.Host) != nil:
		return t, chat.Errorf(chat.Invalid, "thread: the host is malformed")
	case t.Kind == Private && (t.Partner != "" || len(t.Grants) != 0):
		return t, chat.Errorf(chat.Forbidden, "a private conversation admits no partner")
	case t.Kind == Shared && chat.CheckPartner(t.Partner) != nil:
		return t, chat.Errorf(chat.Invalid, "a shared thread names its partner")
	case t.Kind > Shared || len(t.Grants) > MaxGrants:
		return t, chat.Errorf(chat.Invalid, "thread: unknown kind, or too many grants")
	}
	for i := range t.Grants {
		e := &t.Grants[i]
		if i > 0 && bytes.Compare(t.Grants[i-1].Grant[:], e.Grant[:]) >= 0 {
			return t, chat.Errorf(chat.Invalid, "thread: grants are not sorted or repeat")
		}
		if chat.CheckHandle(e.Handle) != nil || e.Account.IsZero() || checkActions(e.Actions) != nil {
			return t, chat.Errorf(chat.Invalid, "thread: a grant's entry is malformed")
		}
	}
	return t, nil
}

// Find returns the entry of a grant.
func (t Thread) Find(id chat.GrantID) (Entry, bool) {
	for _, e := range t.Grants {
		if e.Grant == id {
			return e, true
		}
	}
	return Entry{}, false
}

// With returns the thread with an entry added, or put in the place of one with its id.
func (t Thread) With(e Entry) Thread {
	grants := append([]Entry{}, t.Without(e.Grant).Grants...)
	at := 0
	for at < len(grants) && bytes.Compare(grants[at].Grant[:], e.Grant[:]) < 0 {
		at++
	}
	t.Grants = append(grants[:at:at], append([]Entry{e}, grants[at:]...)...)
	return t
}

// Without returns the thread without the entry of a grant.
func (t Thread) Without(id chat.GrantID) Thread {
	var grants []Entry
	for _, e := range t.Grants {
		if e.Grant != id {
			grants = append(grants, e)
		}
	}
	t.Grants = grants
	return t
}

// Entry makes the entry of a signed grant.
func (g *Grant) Entry(signed []byte) Entry {
	return Entry{Grant: g.ID, Hash: HashOf(signed), Account: g.Account, Handle: g.Handle, Actions: g.Actions, AgentKey: g.AgentKey, Expiry: g.Expiry}
}
