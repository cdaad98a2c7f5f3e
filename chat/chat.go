// Package chat holds the nouns of letterlock that every other package shares: the ids of accounts, devices, conversations and
// grants, their MIMI URIs, the actions a grant can carry, and the kinds of error that cross the wire.
//
// It imports only the standard library, does no I/O and decides nothing. What a person allowed is decided in package grant, what
// is true of a signature in package canon.
package chat

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// AccountID names a person for good: 16 random bytes, never reassigned.
type AccountID [16]byte

// ConversationID names a conversation and is its MLS group id: 16 random bytes.
type ConversationID [16]byte

// GrantID names a grant: 16 random bytes, never reused.
type GrantID [16]byte

// DeviceID names one device of an account: 8 random bytes.
type DeviceID [8]byte

// MessageID is the id of a message's content as draft-ietf-mimi-content-08 computes it: 0x01 and 31 bytes of SHA-256.
type MessageID [32]byte

func (id AccountID) String() string      { return hex.EncodeToString(id[:]) }
func (id ConversationID) String() string { return hex.EncodeToString(id[:]) }
func (id GrantID) String() string        { return hex.EncodeToString(id[:]) }
func (id DeviceID) String() string       { return hex.EncodeToString(id[:]) }
func (id MessageID) String() string      { return hex.EncodeToString(id[:]) }

// MarshalText writes the id in lower-case hex, the form that URIs, JSON and the command line use.
func (id AccountID) MarshalText() ([]byte, error)      { return []byte(id.String()), nil }
func (id ConversationID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }
func (id GrantID) MarshalText() ([]byte, error)        { return []byte(id.String()), nil }
func (id DeviceID) MarshalText() ([]byte, error)       { return []byte(id.String()), nil }
func (id MessageID) MarshalText() ([]byte, error)      { return []byte(id.String()), nil }

// UnmarshalText reads lower-case hex of exactly the id's length.
func (id *AccountID) UnmarshalText(b []byte) error      { return readHex("account id", id[:], b) }
func (id *ConversationID) UnmarshalText(b []byte) error { return readHex("conversation id", id[:], b) }
func (id *GrantID) UnmarshalText(b []byte) error        { return readHex("grant id", id[:], b) }
func (id *DeviceID) UnmarshalText(b []byte) error       { return readHex("device id", id[:], b) }
func (id *MessageID) UnmarshalText(b []byte) error      { return readHex("message id", id[:], b) }

// IsZero reports whether the id was never set.
func (id AccountID) IsZero() bool      { return id == AccountID{} }
func (id ConversationID) IsZero() bool { return id == ConversationID{} }
func (id GrantID) IsZero() bool        { return id == GrantID{} }

func readHex(what string, dst, src []byte) error {
	if len(src) != hex.EncodedLen(len(dst)) {
		return Errorf(Invalid, "%s: want %d hex digits, got %d", what, hex.EncodedLen(len(dst)), len(src))
	}
	for _, c := range src {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return Errorf(Invalid, "%s: not lower-case hex", what)
		}
	}
	_, err := hex.Decode(dst, src)
	return err
}

// NewAccountID draws a new random id.
func NewAccountID() (id AccountID) { fill(id[:]); return id }

// NewConversationID draws a new random id.
func NewConversationID() (id ConversationID) { fill(id[:]); return id }

// NewGrantID draws a new random id.
func NewGrantID() (id GrantID) { fill(id[:]); return id }

// NewDeviceID draws a new random id.
func NewDeviceID() (id DeviceID) { fill(id[:]); return id }

// NewToken returns 32 random bytes, for access tokens, dedup keys and salts.
func NewToken() (t [32]byte) { fill(t[:]); return t }

// fill reads from the system's generator, which does not fail (crypto/rand.Read ends the program if it does).
func fill(b []byte) {
	if _, err := io.ReadFull(rand.Reader, b); err != nil {
		panic("chat: no randomness")
	}
}

// ParseAccountID reads an id from hex, and so on for the other kinds.
func ParseAccountID(s string) (id AccountID, err error) { err = id.UnmarshalText([]byte(s)); return }

// ParseConversationID reads an id from hex.
func ParseConversationID(s string) (id ConversationID, err error) {
	err = id.UnmarshalText([]byte(s))
	return
}

// ParseGrantID reads an id from hex.
func ParseGrantID(s string) (id GrantID, err error) { err = id.UnmarshalText([]byte(s)); return }

// ParseDeviceID reads an id from hex.
func ParseDeviceID(s string) (id DeviceID, err error) { err = id.UnmarshalText([]byte(s)); return }

// ParseMessageID reads an id from hex.
func ParseMessageID(s string) (id MessageID, err error) { err = id.UnmarshalText([]byte(s)); return }

var (
	handleForm  = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?$`)
	partnerForm = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$`)
	hostForm    = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9.-]{0,252})(?::[0-9]{1,5})?$`)
)

// CheckHandle says whether a handle may be taken: 1 to 32 of a-z 0-9 . _ - that begin and end with a letter or digit.
func CheckHandle(h string) error {
	if !handleForm.MatchString(h) {
		return Errorf(Invalid, "handle: use 1 to 32 of a-z, 0-9, dot, dash and underscore, beginning and ending with a letter or digit")
	}
	return nil
}

// CheckPartner says whether a partner id is well formed: 1 to 32 of a-z 0-9 - that begin and end with a letter or digit.
func CheckPartner(p string) error {
	if !partnerForm.MatchString(p) {
		return Errorf(Invalid, "partner id: use 1 to 32 of a-z, 0-9 and dash, beginning and ending with a letter or digit")
	}
	return nil
}

// CheckHost says whether a MIMI authority is well formed: a lower-case host name or address, with a port if it is not the usual one.
func CheckHost(h string) error {
	if !hostForm.MatchString(h) {
		return Errorf(Invalid, "host %q is not a lower-case host name with an optional port", clip(h))
	}
	return nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// EqualBytes compares secrets in constant time, lengths included.
func EqualBytes(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// Actions is a set of what a grant allows.
type Actions uint8

// The actions of a grant (design: a permission is a key).
const (
	Send   Actions = 1 << iota // put posts through the slot
	Read                       // be a leaf of the thread, from one epoch on
	Delete                     // take back what it posted for that person
)

// AllActions is every action there is.
const AllActions = Send | Read | Delete

var actionNames = []struct {
	a    Actions
	name string
}{{Send, "send"}, {Read, "read"}, {Delete, "delete"}}

// Has reports whether every action of b is in a.
func (a Actions) Has(b Actions) bool { return a&b == b }

// Names lists the actions in their fixed order.
func (a Actions) Names() []string {
	names := []string{}
	for _, n := range actionNames {
		if a.Has(n.a) {
			names = append(names, n.name)
		}
	}
	return names
}

// ParseActions reads names of actions. An unknown name, a repeat or an empty list is refused.
func ParseActions(names []string) (Actions, error) {
	var a Actions
next:
	for _, name := range names {
		for _, n := range actionNames {
			if n.name == name {
				if a.Has(n.a) {
					return 0, Errorf(Invalid, "action %q is named twice", name)
				}
				a |= n.a
				continue next
			}
		}
		return 0, Errorf(Invalid, "unknown action %q: the actions are send, read and delete", clip(name))
	}
	if a == 0 {
		return 0, Errorf(Invalid, "no action named: the actions are send, read and delete")
	}
	return a, nil
}

// String joins the names with commas.
func (a Actions) String() string {
	s := ""
	for i, n := range a.Names() {
		if i > 0 {
			s += ","
		}
		s += n
	}
	return s
}

// MarshalText writes the comma form.
func (a Actions) MarshalText() ([]byte, error) {
	if a&^AllActions != 0 {
		return nil, fmt.Errorf("chat: unknown actions")
	}
	return []byte(a.String()), nil
}

// UnmarshalText reads the comma form.
func (a *Actions) UnmarshalText(b []byte) (err error) {
	*a, err = ParseActions(strings.Split(string(b), ","))
	return err
}
