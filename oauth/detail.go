package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"letterlock/chat"
)

// DetailType is the type of authorization details (RFC 9396) that partners ask with.
const DetailType = "inbox_conversation"

const (
	maxCerts      = 4 << 10  // bytes
	maxKeyPackage = 16 << 10 // bytes
	maxDetails    = 1        // of a request
)

// asked is the JSON form of what a partner asks for.
type asked struct {
	Type       string   `json:"type"`
	Actions    []string `json:"actions"`
	Identifier string   `json:"identifier,omitempty"` // of the conversation, or
	Pick       bool     `json:"pick,omitempty"`       // the person picks a friend
	GrantID    string   `json:"grant_id"`
	Certs      []byte   `json:"certs"`
	KeyPackage []byte   `json:"key_package,omitempty"` // needed for read
	ValidUntil int64    `json:"valid_until"`           // ms
}

// detail is what a partner asks for, as stored (spec/oauth.md).
type detail struct {
	_          struct{} `cbor:",toarray"`
	Actions    uint64
	Pick       bool
	Thread     chat.ConversationID // zero with Pick
	Grant      chat.GrantID
	Certs      []byte
	KeyPackage []byte
	ValidUntil int64 // ms
}

func (d detail) actions() chat.Actions { return chat.Actions(d.Actions) }
func (d detail) grant() chat.GrantID   { return d.Grant }

// parseDetail reads authorization details strictly: unknown members are refused.
func parseDetail(raw goidc.AuthDetail) (d detail, err error) {
	b, err := json.Marshal(raw)
	if err != nil {
		return d, err
	}
	var a asked
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		return d, chat.Wrap(chat.Invalid, err, "authorization_details: not the members of %s", DetailType)
	}
	if _, err := dec.Token(); err != io.EOF {
		return d, chat.Errorf(chat.Invalid, "authorization_details: trailing data")
	}
	if a.Type != DetailType {
		return d, chat.Errorf(chat.Invalid, "authorization_details: the only type is %s", DetailType)
	}
	return a.detail()
}

func (a asked) detail() (d detail, err error) {
	actions, err := chat.ParseActions(a.Actions)
	if err != nil {
		return d, err
	}
	d = detail{Actions: uint64(actions), Pick: a.Pick, Certs: a.Certs, KeyPackage: a.KeyPackage, ValidUntil: a.ValidUntil}
	if a.Pick == (a.Identifier != "") {
		return d, chat.Errorf(chat.Invalid, "authorization_details: name a conversation in identifier, or set pick to true")
	}
	if !a.Pick {
		if d.Thread, err = chat.ParseConversationID(a.Identifier); err != nil {
			return d, err
		}
	}
	if d.Grant, err = chat.ParseGrantID(a.GrantID); err != nil {
		return d, err
	}
	if d.Grant.IsZero() {
		return d, chat.Errorf(chat.Invalid, "authorization_details: grant_id must be random")
	}
	if len(d.Certs) == 0 || len(d.Certs) > maxCerts || len(d.KeyPackage) > maxKeyPackage {
		return d, chat.Errorf(chat.Invalid, "authorization_details: certs of 1 to %d bytes, key_package of at most %d", maxCerts, maxKeyPackage)
	}
	if actions.Has(chat.Read) != (len(d.KeyPackage) > 0) {
		return d, chat.Errorf(chat.Invalid, "authorization_details: key_package is there for read, and only for read")
	}
	return d, nil
}

// stillValid refuses what would be over before it begins.
func (d detail) stillValid(now time.Time) error {
	if d.ValidUntil <= now.UnixMilli() {
		return chat.Errorf(chat.Invalid, "authorization_details: valid_until is in the past")
	}
	return nil
}

// granted is the JSON form of what a token answer and introspection say: no keys, no conversation.
func granted(id chat.GrantID, actions chat.Actions, validUntil int64) []goidc.AuthDetail {
	names := []any{}
	for _, n := range actions.Names() {
		names = append(names, n)
	}
	return []goidc.AuthDetail{{"type": DetailType, "grant_id": id.String(), "actions": names, "valid_until": validUntil}}
}

// validDetail is go-oidc's check of each of the details, at the pushed request and at the token endpoint. The strict one is judgePush.
func validDetail(_ context.Context, raw goidc.AuthDetail) error {
	if raw.Type() != DetailType {
		return errors.New("unknown type")
	}
	return nil
}

// sameDetails refuses details at the token endpoint that are not exactly the granted ones: a token is never wider.
func sameDetails(_ context.Context, requested, granted []goidc.AuthDetail) error {
	r, err := json.Marshal(requested)
	if err != nil {
		return err
	}
	g, err := json.Marshal(granted)
	if err != nil {
		return err
	}
	if !bytes.Equal(r, g) {
		return errors.New("these are not the authorization details that were granted")
	}
	return nil
}
