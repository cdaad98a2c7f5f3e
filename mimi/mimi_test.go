package mimi

import (
	"bytes"
	"encoding/hex"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"letterlock/chat"
)

const (
	alice   = "mimi://chat.example/u/alice"
	bob     = "mimi://chat.example/u/bob"
	flimmer = "mimi://chat.example/a/flimmer/000102030405060708090a0b0c0d0e0f"
	room    = "mimi://chat.example/r/00000000000000000000000000000000"
)

func marshal(t testing.TB, c Content) []byte {
	t.Helper()
	data, err := Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func open(t testing.TB, c Content, sender string) Message {
	t.Helper()
	m, err := Open(marshal(t, c), sender, room)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func single(contentType, body string) Part {
	return Part{Disposition: Render, Cardinality: Single, ContentType: contentType, Content: []byte(body)}
}

func multi(s Semantics, parts ...Part) Part {
	return Part{Disposition: Render, Cardinality: Multi, Semantics: s, Parts: parts}
}

func TestSaltsDiffer(t *testing.T) {
	a, b := Text("hello"), Text("hello")
	if a.Salt == b.Salt || a.Salt == [16]byte{} {
		t.Error("two messages have one salt")
	}
	if open(t, a, alice).ID == open(t, b, alice).ID {
		t.Error("two messages have one id")
	}
}

func TestIDBindsEverything(t *testing.T) {
	c := Text("hello")
	data := marshal(t, c)
	id := ID(alice, room, data, c.Salt)
	salt := c.Salt
	salt[0] ^= 1
	for name, other := range map[string]chat.MessageID{
		"sender":   ID(bob, room, data, c.Salt),
		"room":     ID(alice, room+"0", data, c.Salt),
		"content":  ID(alice, room, append(bytes.Clone(data), 0), c.Salt),
		"salt":     ID(alice, room, data, salt),
		"boundary": ID(alice+room[:1], room[1:], data, c.Salt),
	} {
		if other == id {
			t.Errorf("another %s, the same id", name)
		}
	}
	if id[0] != 1 {
		t.Errorf("hash %d", id[0])
	}
	if (ID(strings.Repeat("x", 65536), room, data, c.Salt) != chat.MessageID{}) {
		t.Error("a sender whose length does not fit has an id")
	}
}

// plain is a text "hi" with zeros for salt, by hand, with a part for each place that a case spoils.
func plain(change map[string]string) string {
	p := map[string]string{
		"array": "87", "salt": "50" + strings.Repeat("00", 16), "replaces": "f6", "topic": "40", "expires": "f6", "reply": "f6",
		"extensions": "a0", "part": "85016001" + "6a" + hex.EncodeToString([]byte("text/plain")) + "42" + hex.EncodeToString([]byte("hi")), "end": "",
	}
	maps.Copy(p, change)
	return p["array"] + p["salt"] + p["replaces"] + p["topic"] + p["expires"] + p["reply"] + p["extensions"] + p["part"] + p["end"]
}

func TestUnmarshalRefuses(t *testing.T) {
	deep := func(levels int) string { // of parts; a multi part of two, the first of which goes on
		p := "83006000"
		for range levels - 1 {
			p = "850060030082" + p + "83006000"
		}
		return p
	}
	text := func(s string) string { return hex.EncodeToString([]byte(s)) }
	for name, tc := range map[string]struct {
		change map[string]string
		ok     bool
	}{
		"nothing wrong":                    {nil, true},
		"an unknown disposition":           {map[string]string{"part": "8318ff6000"}, true},
		"four levels":                      {map[string]string{"part": deep(4)}, true},
		"an extension":                     {map[string]string{"extensions": "a11901006161"}, true},
		"an extension named by text":       {map[string]string{"extensions": "a161780a"}, true},
		"an extension with a negative":     {map[string]string{"extensions": "a1203903e7"}, true},
		"an extension of bytes":            {map[string]string{"extensions": "a1190100a1416100"}, true},
		"an extension as in the draft":     {map[string]string{"extensions": "a1190100" + "82" + "82421234d82061" + text("a") + "824234561916" + "8b"}, true},
		"an extension with a float":        {map[string]string{"extensions": "a1190100f93c00"}, true},
		"an extension with a large int":    {map[string]string{"extensions": "a11901001bffffffffffffffff"}, true},
		"an extension with a bignum":       {map[string]string{"extensions": "a1190100c249010000000000000000"}, true},
		"five levels":                      {map[string]string{"part": deep(5)}, false},
		"a trailing byte":                  {map[string]string{"end": "00"}, false},
		"an item missing":                  {map[string]string{"array": "86", "part": ""}, false},
		"an item too many":                 {map[string]string{"array": "88", "end": "f6"}, false},
		"a short salt":                     {map[string]string{"salt": "4f" + strings.Repeat("00", 15)}, false},
		"a long salt":                      {map[string]string{"salt": "51" + strings.Repeat("00", 17)}, false},
		"a short id":                       {map[string]string{"replaces": "581f" + strings.Repeat("01", 31)}, false},
		"undefined for null":               {map[string]string{"replaces": "f7"}, false},
		"null for bytes":                   {map[string]string{"topic": "f6"}, false},
		"text for bytes":                   {map[string]string{"topic": "60"}, false},
		"a long length":                    {map[string]string{"topic": "5800"}, false},
		"indefinite bytes":                 {map[string]string{"topic": "5f40ff"}, false},
		"an indefinite map":                {map[string]string{"extensions": "bfff"}, false},
		"an indefinite array":              {map[string]string{"array": "9f", "end": "ff"}, false},
		"a tag":                            {map[string]string{"topic": "c240"}, false},
		"an expiry of 33 bits":             {map[string]string{"expires": "82f41b0000000100000000"}, false},
		"an expiry of three":               {map[string]string{"expires": "83f40000"}, false},
		"a long integer":                   {map[string]string{"expires": "82f41800"}, false},
		"a duplicate extension":            {map[string]string{"extensions": "a2190100001901000" + "1"}, false},
		"extensions out of order":          {map[string]string{"extensions": "a2190100000300"}, false},
		"an extension keyed by bytes":      {map[string]string{"extensions": "a1416100"}, false},
		"an extension keyed by a float":    {map[string]string{"extensions": "a1f93c0000"}, false},
		"an extension keyed by true":       {map[string]string{"extensions": "a1f500"}, false},
		"an extension keyed by nothing":    {map[string]string{"extensions": "a16000"}, false},
		"an extension keyed by 2^53":       {map[string]string{"extensions": "a11b002000000000000000"}, false},
		"an extension's key 2^64":          {map[string]string{"extensions": "a1190100a11bffffffffffffffff00"}, false},
		"an extension's key true":          {map[string]string{"extensions": "a1190100a1f500"}, false},
		"an extension's keys twice":        {map[string]string{"extensions": "a1190100a2010001" + "00"}, false},
		"an extension of five levels":      {map[string]string{"extensions": "a11901008181818100"}, false},
		"an extension with a long int":     {map[string]string{"extensions": "a11901001800"}, false},
		"an extension with a long float":   {map[string]string{"extensions": "a1190100fa3f800000"}, false},
		"an extension with another NaN":    {map[string]string{"extensions": "a1190100f97e01"}, false},
		"an extension with undefined":      {map[string]string{"extensions": "a1190100f7"}, false},
		"an extension with a time":         {map[string]string{"extensions": "a1190100c100"}, false},
		"an extension that is no UTF-8":    {map[string]string{"extensions": "a119010061ff"}, false},
		"no cardinality":                   {map[string]string{"part": "820160"}, false},
		"an unknown cardinality":           {map[string]string{"part": "83016004"}, false},
		"an unknown semantics":             {map[string]string{"part": "8501600303828301600083016000"}, false},
		"a multi part of one":              {map[string]string{"part": "8501600300818301" + "6000"}, false},
		"a disposition above 255":          {map[string]string{"part": "831901006000"}, false},
		"nothing with content":             {map[string]string{"part": "8401600040"}, false},
		"a content that is text":           {map[string]string{"part": "85016001606268" + "69"}, false},
		"a language that is not UTF-8":     {map[string]string{"part": "830161ff00"}, false},
		"a part that is a map":             {map[string]string{"part": "a0"}, false},
		"a part that is an integer":        {map[string]string{"part": "00"}, false},
		"an external part without its end": {map[string]string{"part": "8601600260600" + "0"}, false},
	} {
		data, err := hex.DecodeString(plain(tc.change))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c, err := Unmarshal(data)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && !chat.Is(err, chat.Invalid) && !chat.Is(err, chat.TooLarge) {
			t.Errorf("%s: kind %s", name, chat.KindOf(err))
		}
		if err == nil {
			if again, err := Marshal(c); err != nil || !bytes.Equal(again, data) {
				t.Errorf("%s: written again as %x, want %x (%v)", name, again, data, err)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	parts := func(n int) []Part { return make([]Part, n) }
	external := func(change func(*Reference)) Content {
		c := content(Part{Cardinality: External, Reference: Reference{URL: "https://chat.example/x"}})
		change(&c.Body.Reference)
		return c
	}
	with := func(change func(*Content)) Content {
		c := Text("hi")
		change(&c)
		return c
	}
	extensions := func(n int) map[any]cbor.RawMessage {
		m := map[any]cbor.RawMessage{}
		for i := range n {
			m[int64(1000+i)] = cbor.RawMessage{0}
		}
		return m
	}
	long := func(n int) cbor.RawMessage { // a value of n bytes in all
		b, err := enc.Marshal(make([]byte, n-3))
		if err != nil || len(b) != n {
			t.Fatalf("%d bytes for %d: %v", len(b), n, err)
		}
		return b
	}
	levels := func(n int) Content { // n - 1 multi parts around a text
		p := single(PlainText, "hi")
		for range n - 1 {
			p = multi(ChooseOne, p, Part{})
		}
		return content(p)
	}
	for name, pair := range map[string][2]Content{ // the largest that is taken, and a little more
		"text":        {Text(x(MaxText)), Text(x(MaxText + 1))},
		"markdown":    {content(single("Text/Markdown; variant=x", x(MaxText))), content(single("Text/Markdown; variant=x", x(MaxText+1)))},
		"card":        {content(single(CardType, x(MaxCard))), content(single(CardType, x(MaxCard+1)))},
		"whole":       {content(single("image/png", x(MaxContent-100))), content(single("image/png", x(MaxContent-10)))},
		"parts":       {content(multi(ProcessAll, parts(MaxParts-1)...)), content(multi(ProcessAll, parts(MaxParts)...))},
		"levels":      {levels(4), levels(5)},
		"topic":       {with(func(c *Content) { c.TopicID = make([]byte, 255) }), with(func(c *Content) { c.TopicID = make([]byte, 256) })},
		"type":        {content(single(x(255), "")), content(single(x(256), ""))},
		"language":    {with(func(c *Content) { c.Body.Language = x(255) }), with(func(c *Content) { c.Body.Language = x(256) })},
		"url":         {external(func(r *Reference) { r.URL = x(2048) }), external(func(r *Reference) { r.URL = x(2049) })},
		"description": {external(func(r *Reference) { r.Description = x(1024) }), external(func(r *Reference) { r.Description = x(1025) })},
		"file name":   {external(func(r *Reference) { r.Filename = x(255) }), external(func(r *Reference) { r.Filename = x(256) })},
		"key":         {external(func(r *Reference) { r.Key = make([]byte, 255) }), external(func(r *Reference) { r.Key = make([]byte, 256) })},
		"extensions":  {with(func(c *Content) { c.Extensions = extensions(32) }), with(func(c *Content) { c.Extensions = extensions(33) })},
		"value": {with(func(c *Content) { c.Extensions = map[any]cbor.RawMessage{"x": long(4096)} }),
			with(func(c *Content) { c.Extensions = map[any]cbor.RawMessage{"x": long(4097)} })},
	} {
		data, err := Marshal(pair[0])
		if err != nil {
			t.Errorf("%s at the limit: %v", name, err)
		} else if _, err := Unmarshal(data); err != nil {
			t.Errorf("%s at the limit, read: %v", name, err)
		}
		if _, err := Marshal(pair[1]); !chat.Is(err, chat.TooLarge) {
			t.Errorf("%s above the limit: %v", name, err)
		}
		if data, err = enc.Marshal(pair[1]); err != nil {
			t.Fatal(err)
		}
		if _, err := Unmarshal(data); err == nil {
			t.Errorf("%s above the limit, read: accepted", name)
		}
	}
	if _, err := Marshal(with(func(c *Content) { c.Extensions = map[any]cbor.RawMessage{3: {0}} })); !chat.Is(err, chat.Invalid) {
		t.Errorf("a key of type int: %v", err)
	}
	if _, err := Marshal(content(Part{Cardinality: 9})); !chat.Is(err, chat.Invalid) {
		t.Errorf("an unknown cardinality: %v", err)
	}
}

// 64 KiB that say they hold much more must not cost memory.
func TestClaimedLengthsCostNothing(t *testing.T) {
	for name, head := range map[string]string{
		"bytes": "875b00000fffffffffff", "array": "9b00000fffffffffff", "map": "8750" + strings.Repeat("00", 16) + "f640f6f6bb00000fffffffffff",
		"text": "877b00000fffffffffff", "nested": strings.Repeat("81", 60000),
	} {
		data, err := hex.DecodeString(head)
		if err != nil {
			t.Fatal(err)
		}
		allocated := testing.AllocsPerRun(3, func() {
			if _, err := Unmarshal(data); err == nil {
				t.Errorf("%s: accepted", name)
			}
		})
		if allocated > 100 {
			t.Errorf("%s: %v allocations", name, allocated)
		}
	}
}

func TestOpenRefusesAnotherName(t *testing.T) {
	uri := func(s string) cbor.RawMessage {
		b, err := enc.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tc := range map[string]struct {
		extensions map[any]cbor.RawMessage
		ok         bool
	}{
		"no names":                  {nil, true},
		"the right names":           {map[any]cbor.RawMessage{ExtensionSender: uri(alice), ExtensionRoom: uri(room)}, true},
		"another sender":            {map[any]cbor.RawMessage{ExtensionSender: uri(bob)}, false},
		"another room":              {map[any]cbor.RawMessage{ExtensionRoom: uri(room + "0")}, false},
		"a sender that is no text":  {map[any]cbor.RawMessage{ExtensionSender: {0xf6}}, false},
		"a sender that is a number": {map[any]cbor.RawMessage{ExtensionSender: {1}}, false},
	} {
		c := Text("hi")
		c.Extensions = tc.extensions
		_, err := Open(marshal(t, c), alice, room)
		if tc.ok && err != nil || !tc.ok && !chat.Is(err, chat.Tampered) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExpiry(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_001)
	c := Text("hi")
	for _, tc := range []struct {
		expires *Expiration
		want    int64
	}{
		{nil, 0}, {ExpiresAt(at), 1_700_000_001_000}, {ExpiresAt(at.Add(-time.Millisecond)), 1_700_000_000_000},
		{&Expiration{Relative: true, Time: 60}, 0}, {&Expiration{}, 0}, {&Expiration{Time: math.MaxUint32}, (1<<32 - 1) * 1000},
	} {
		c.Expires = tc.expires
		back, err := Unmarshal(marshal(t, c))
		if err != nil || back.Over() != tc.want {
			t.Errorf("%+v is over at %d, %v; want %d", tc.expires, back.Over(), err, tc.want)
		}
	}
}
