package chat

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

// TestIDs: an id is written in lower-case hex, and nothing else reads back.
func TestIDs(t *testing.T) {
	for _, c := range []struct {
		name  string
		size  int
		fresh func() encoding.TextMarshaler
		parse func(string) (fmt.Stringer, error)
	}{
		{"account", 16, func() encoding.TextMarshaler { return NewAccountID() }, func(s string) (fmt.Stringer, error) { return ParseAccountID(s) }},
		{"conversation", 16, func() encoding.TextMarshaler { return NewConversationID() }, func(s string) (fmt.Stringer, error) { return ParseConversationID(s) }},
		{"grant", 16, func() encoding.TextMarshaler { return NewGrantID() }, func(s string) (fmt.Stringer, error) { return ParseGrantID(s) }},
		{"device", 8, func() encoding.TextMarshaler { return NewDeviceID() }, func(s string) (fmt.Stringer, error) { return ParseDeviceID(s) }},
		{"message", 32, func() encoding.TextMarshaler { return MessageID(NewToken()) }, func(s string) (fmt.Stringer, error) { return ParseMessageID(s) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := c.fresh()
			text, err := id.MarshalText()
			if err != nil || len(text) != 2*c.size || string(text) != strings.ToLower(string(text)) {
				t.Fatalf("%s %v", text, err)
			}
			back, err := c.parse(string(text))
			if err != nil || any(back) != any(id) || back.String() != string(text) {
				t.Errorf("%v became %v: %v", id, back, err)
			}
			if again := c.fresh(); again == id {
				t.Error("the same id twice")
			}
			good := strings.Repeat("ab", c.size)
			for _, bad := range []string{"", good[1:], good + "0", good + "ab", good[2:], strings.ToUpper(good), "0x" + good[2:], " " + good[1:],
				good[:len(good)-1] + "g", good[:len(good)-1] + "\n", good[:len(good)-2] + "é"} {
				if _, err := c.parse(bad); !Is(err, Invalid) {
					t.Errorf("%q: %v", bad, err)
				}
			}
		})
	}
	if !(AccountID{}).IsZero() || !(ConversationID{}).IsZero() || !(GrantID{}).IsZero() ||
		NewAccountID().IsZero() || NewConversationID().IsZero() || NewGrantID().IsZero() {
		t.Error("IsZero")
	}
	if NewToken() == NewToken() {
		t.Error("the same token twice")
	}
	var in struct{ ID GrantID }
	if err := json.Unmarshal([]byte(`{"ID":"`+strings.Repeat("0F", 16)+`"}`), &in); err == nil {
		t.Error("JSON with capitals was read")
	}
	in.ID = NewGrantID()
	data, _ := json.Marshal(in)
	out := in
	out.ID = GrantID{}
	if err := json.Unmarshal(data, &out); err != nil || out != in {
		t.Errorf("%s: %v", data, err)
	}
}

// TestNames: what may stand in a URI, and what may not.
func TestNames(t *testing.T) {
	long := strings.Repeat("a", 300)
	for _, c := range []struct {
		name  string
		check func(string) error
		good  []string
		bad   []string
	}{
		{"handle", CheckHandle,
			[]string{"a", "0", "alice", "a.b_c-d", "a--b", "a..b", long[:32]},
			[]string{"", "Alice", ".a", "a.", "-a", "a-", "_a", "a_", "a b", "a/b", "alice\n", "\nalice", "a\x00", "é", "a%2f", "a@b", "a:b", long[:33]}},
		{"partner", CheckPartner,
			[]string{"f", "flimmer", "flim-mer", "0", long[:32]},
			[]string{"", "Flimmer", "-f", "f-", "f.g", "f_g", "f g", "f/g", "flimmer\n", "é", long[:33]}},
		{"host", CheckHost,
			[]string{"a", "chat.example", "chat.example:8080", "127.0.0.1:8080", "a-b.example", long[:253]},
			[]string{"", "Chat.example", ".example", "-a", ":80", "chat.example:", "chat.example:123456", "chat.example:80a", "a:b", "a:1:2", "a/b", "a@b",
				"a b", "chat.example\n", "é.example", "[::1]:80", "a_b", "a?b", "a#b", long[:254]}},
	} {
		for _, s := range c.good {
			if err := c.check(s); err != nil {
				t.Errorf("%s %q: %v", c.name, s, err)
			}
		}
		for _, s := range c.bad {
			err := c.check(s)
			if !Is(err, Invalid) {
				t.Errorf("%s %q: %v", c.name, s, err)
			} else if len(err.Error()) > 200 {
				t.Errorf("%s: a sentence of %d bytes", c.name, len(err.Error()))
			}
		}
	}
}

func TestActions(t *testing.T) {
	for a := Actions(1); a <= AllActions; a++ {
		back, err := ParseActions(a.Names())
		if err != nil || back != a {
			t.Errorf("%s became %s: %v", a, back, err)
		}
		text, err := json.Marshal(a)
		var read Actions
		if err == nil {
			err = json.Unmarshal(text, &read)
		}
		if err != nil || read != a {
			t.Errorf("%s as %s became %s: %v", a, text, read, err)
		}
		for b := Actions(0); b <= AllActions; b++ {
			if a.Has(b) != (a|b == a) {
				t.Errorf("%s has %s: %v", a, b, a.Has(b))
			}
		}
	}
	if Send != 1 || Read != 2 || Delete != 4 || AllActions != 7 {
		t.Error("the bits are the format's and do not change")
	}
	if s := AllActions.String(); s != "send,read,delete" {
		t.Errorf("all actions are %q", s)
	}
	for _, bad := range [][]string{nil, {}, {""}, {"write"}, {"Send"}, {"send", "send"}, {"send", "read", "send"}, {"send,read"}, {" send"}, {strings.Repeat("x", 10_000)}} {
		if _, err := ParseActions(bad); !Is(err, Invalid) || len(err.Error()) > 200 {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
	for _, bad := range []string{`""`, `"send,"`, `"send, read"`, `"send,send"`, `7`} {
		var a Actions
		if err := json.Unmarshal([]byte(bad), &a); err == nil {
			t.Errorf("%s was read as %s", bad, a)
		}
	}
	if _, err := Actions(8).MarshalText(); err == nil {
		t.Error("an unknown action was written")
	}
}

func TestErrors(t *testing.T) {
	cause := fs.ErrNotExist
	err := fmt.Errorf("outer: %w", Wrap(NotFound, cause, "no such %s", "thing"))
	if KindOf(err) != NotFound || !Is(err, NotFound) || Is(err, Invalid) || !errors.Is(err, cause) {
		t.Errorf("%v of kind %s", err, KindOf(err))
	}
	var e *Error
	if !errors.As(err, &e) || e.Detail != "no such thing" || e.Error() != "no such thing: file does not exist" {
		t.Errorf("%+v", e)
	}
	if s := Errorf(Invalid, "%d of %d", 1, 2).Error(); s != "1 of 2" {
		t.Error(s)
	}
	if KindOf(cause) != Internal || !Is(cause, Internal) || Is(nil, Internal) {
		t.Error("an error without a kind is ours, and none is none")
	}
}

func TestEqualBytes(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{{"", "", true}, {"a", "a", true}, {"a", "b", false}, {"a", "aa", false}, {"", "a", false}} {
		if EqualBytes([]byte(c.a), []byte(c.b)) != c.same {
			t.Errorf("%q and %q", c.a, c.b)
		}
	}
}
