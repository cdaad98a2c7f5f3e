package mimi

import (
	"encoding/hex"
	"strings"
	"testing"

	"letterlock/canon"
	"letterlock/chat"
)

var metropolis = Card{
	Kind: Film, Title: "Metropolis", Subtitle: "Fritz Lang, 1927", Link: "https://flimmer.example/f/metropolis?from=letter#k=c2VjcmV0",
	Details: []Detail{{Label: "Minutes", Value: "153"}},
}

func TestViews(t *testing.T) {
	id := chat.MessageID{1, 2, 3}
	recommendation, err := Recommendation(metropolis)
	if err != nil {
		t.Fatal(err)
	}
	reaction, err := Reaction(id, "\U0001f600")
	if err != nil {
		t.Fatal(err)
	}
	secret := single("application/vnd.example+secret", "\x00\x01")
	badCard := single(CardType, "not a card")
	external := Part{Disposition: Attachment, Cardinality: External, ContentType: "video/mp4", Reference: Reference{Description: "holiday\nfilm\x1b[2J", Filename: "a.mp4"}}
	longReaction := Text(strings.Repeat("\u2764", 40))
	longReaction.Body.Disposition, longReaction.InReplyTo = ReactionPart, &id
	lonely := Text("\u2764")
	lonely.Body.Disposition = ReactionPart

	for name, tc := range map[string]struct {
		content Content
		kind    Kind
		text    string
	}{
		"text":                        {Text("hello"), KindText, "hello"},
		"text of two lines":           {Text("a\r\nb\tc"), KindText, "a\nb\tc"},
		"text that steers":            {Text("a\x1b[31mb\x00\u202ec\u0085"), KindText, "a\ufffd[31mb\ufffd\ufffdc\ufffd"},
		"right to left":               {Text("\u200f\u05d0\u2067b\u2069"), KindText, "\u200f\u05d0\u2067b\u2069"},
		"reply":                       {Reply(id, "yes"), KindReply, "yes"},
		"edit":                        {Edit(id, "yes!"), KindEdit, "yes!"},
		"delete":                      {Delete(id), KindDelete, ""},
		"reaction":                    {reaction, KindReaction, "\U0001f600"},
		"a reaction that is too long": {longReaction, KindReply, strings.Repeat("\u2764", 40)},
		"a reaction to nothing":       {lonely, KindText, "\u2764"},
		"card":                        {recommendation, KindCard, metropolis.Markdown()},
		"nothing at all":              {content(Part{}), KindUnknown, "(an empty message)"},
		"a type that is not known":    {content(secret), KindUnknown, "(a message of type application/vnd.example+secret that this client cannot show)"},
		"a type that lies":            {content(single("x\n/y\x1b[2J", "")), KindUnknown, "(a message of type x /y\ufffd[2j that this client cannot show)"},
		"a text in Latin-1":           {content(single("text/plain;charset=iso-8859-1", "caf\xe9")), KindUnknown, "(a message of type text/plain that this client cannot show)"},
		"a text that is not UTF-8":    {content(single(PlainText, "caf\xe9")), KindUnknown, "(a message of type text/plain that this client cannot show)"},
		"a text of no valid type":     {content(single("text/plain;;=", "hi")), KindUnknown, "(a message of type text/plain that this client cannot show)"},
		"an attachment":               {content(external), KindUnknown, "(an attachment of type video/mp4 that this client cannot show: holiday film\ufffd[2J: a.mp4)"},
		"one of, none known":          {content(multi(ChooseOne, secret, badCard)), KindUnknown, "(a message of type application/vnd.example+secret that this client cannot show)"},
		"one of, a broken card":       {content(multi(ChooseOne, badCard, single(Markdown, "*hi*"))), KindText, "*hi*"},
		"one of, nested":              {content(multi(ChooseOne, secret, multi(ChooseOne, secret, single(PlainText, "in")))), KindText, "in"},
		"all, one known":              {content(multi(ProcessAll, single(PlainText, "see"), external)), KindText, "see\n\n(an attachment of type video/mp4 that this client cannot show: holiday film\ufffd[2J: a.mp4)"},
		"all, none known":             {content(multi(ProcessAll, secret, secret)), KindUnknown, strings.TrimSuffix(strings.Repeat("(a message of type application/vnd.example+secret that this client cannot show)\n\n", 2), "\n\n")},
		"together, all known":         {content(multi(SingleUnit, single(PlainText, "a"), single(PlainText, "b"))), KindText, "a\n\nb"},
		"together, one not":           {content(multi(SingleUnit, single(PlainText, "a"), secret)), KindUnknown, "a\n\n(a message of type application/vnd.example+secret that this client cannot show)"},
	} {
		v := open(t, tc.content, alice).Content.View()
		if v.Kind != tc.kind || v.Text != tc.text {
			t.Errorf("%s: %v %q, want %v %q", name, v.Kind, v.Text, tc.kind, tc.text)
		}
		if (v.Kind == KindCard) != (v.Card != nil) || (v.Kind == KindReaction) != (v.Emoji != "") {
			t.Errorf("%s: card %v, emoji %q", name, v.Card, v.Emoji)
		}
	}
	v := recommendation.View()
	if v.Card.Title != metropolis.Title || v.Card.Link != metropolis.Link || len(v.Card.Details) != 1 || !v.Markdown {
		t.Errorf("the card came back as %+v", v)
	}
}

// The format is spec/content.md. If this fails, old cards are not shown any more: that is a new version.
func TestCardFormatIsFrozen(t *testing.T) {
	data, err := Card{Kind: Track, Title: "T", Link: "http://x.example/#k", Details: []Detail{{Label: "L", Value: "V"}}}.marshal()
	if got, want := hex.EncodeToString(data), "860102615460"+"73"+hex.EncodeToString([]byte("http://x.example/#k"))+"8182614c6156"; err != nil || got != want {
		t.Errorf("%s, want %s (%v)", got, want, err)
	}
}

func TestPlainClientsGetALink(t *testing.T) {
	c, err := Recommendation(metropolis)
	if err != nil {
		t.Fatal(err)
	}
	c.Body.Parts = append([]Part{single("application/unknown", "")}, c.Body.Parts[1])
	v := open(t, c, flimmer).Content.View()
	if want := "[Metropolis](https://flimmer.example/f/metropolis?from=letter#k=c2VjcmV0) Fritz Lang, 1927"; v.Kind != KindText || v.Text != want || !v.Markdown {
		t.Errorf("%+v", v)
	}
}

func TestMarkdownCannotBeBrokenOutOf(t *testing.T) {
	for name, tc := range map[string]struct{ title, subtitle, link, want string }{
		"brackets":      {"a](http://evil.example)[b", "", "https://x.example/", `[a\](http://evil.example)\[b](https://x.example/)`},
		"backslash":     {`a\](http://evil.example)`, "", "https://x.example/", `[a\\\](http://evil.example)](https://x.example/)`},
		"HTML":          {"<b>", "<!-- x", "https://x.example/", `[\<b\>](https://x.example/) \<!-- x`},
		"code":          {"`a`", "``", "https://x.example/", "[\\`a\\`](https://x.example/) \\`\\`"},
		"emphasis":      {"*a* _b_ ~~c~~", "", "https://x.example/", `[\*a\* \_b\_ \~\~c\~\~](https://x.example/)`},
		"a reference":   {"&lt;", "", "https://x.example/?a=1&copy;=2&b=3", `[\&lt;](https://x.example/?a=1\&copy;=2&b=3)`},
		"parentheses":   {"a", "", "https://x.example/a)b(c", `[a](https://x.example/a\)b\(c)`},
		"a block":       {"# a", "- b", "https://x.example/", `[# a](https://x.example/) - b`},
		"another image": {"!", "![x](y)", "https://x.example/", `[!](https://x.example/) !\[x\](y)`},
	} {
		card := Card{Kind: Film, Title: tc.title, Subtitle: tc.subtitle, Link: tc.link}
		if err := card.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := card.Markdown(); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestCardsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Card){
		"no kind":                   func(c *Card) { c.Kind = 0 },
		"an unknown kind":           func(c *Card) { c.Kind = 5 },
		"no title":                  func(c *Card) { c.Title = "" },
		"a long title":              func(c *Card) { c.Title = strings.Repeat("x", 201) },
		"a title of two lines":      func(c *Card) { c.Title = "a\nb" },
		"a title that steers":       func(c *Card) { c.Title = "a\x1b[2J" },
		"a title turned around":     func(c *Card) { c.Title = "a\u202eb" },
		"a title with an isolate":   func(c *Card) { c.Title = "a\u2067b" },
		"a line separator":          func(c *Card) { c.Title = "a\u2028b" },
		"a title that is not UTF-8": func(c *Card) { c.Title = "a\xffb" },
		"a long subtitle":           func(c *Card) { c.Subtitle = strings.Repeat("x", 201) },
		"a subtitle turned around":  func(c *Card) { c.Subtitle = "\u202d" },
		"nine details":              func(c *Card) { c.Details = make([]Detail, 9) },
		"a detail without a label":  func(c *Card) { c.Details = []Detail{{Value: "x"}} },
		"a detail without a value":  func(c *Card) { c.Details = []Detail{{Label: "x"}} },
		"a long label":              func(c *Card) { c.Details = []Detail{{Label: strings.Repeat("x", 41), Value: "x"}} },
		"a long value":              func(c *Card) { c.Details = []Detail{{Label: "x", Value: strings.Repeat("x", 121)}} },
		"a value that steers":       func(c *Card) { c.Details = []Detail{{Label: "x", Value: "\x07"}} },
		"no link":                   func(c *Card) { c.Link = "" },
		"a long link":               func(c *Card) { c.Link = "https://x.example/" + strings.Repeat("x", 2048) },
		"a script":                  func(c *Card) { c.Link = "javascript:alert(1)" },
		"data":                      func(c *Card) { c.Link = "data:text/html,x" },
		"a file":                    func(c *Card) { c.Link = "file:///etc/passwd" },
		"another app":               func(c *Card) { c.Link = "mimi://chat.example/u/alice" },
		"no scheme":                 func(c *Card) { c.Link = "//x.example/" },
		"no host":                   func(c *Card) { c.Link = "https:///x" },
		"a port alone":              func(c *Card) { c.Link = "https://:443/x" },
		"a user name":               func(c *Card) { c.Link = "https://flimmer.example@evil.example/" },
		"a backslash":               func(c *Card) { c.Link = `https://flimmer.example\@evil.example/` },
		"a space":                   func(c *Card) { c.Link = "https://x.example/ y" },
		"a new line":                func(c *Card) { c.Link = "https://x.example/\n" },
		"angle brackets":            func(c *Card) { c.Link = "https://x.example/<y>" },
		"a quote":                   func(c *Card) { c.Link = `https://x.example/"y` },
		"a look-alike":              func(c *Card) { c.Link = "https://flimm\u0435r.example/" },
		"a broken percent sign":     func(c *Card) { c.Link = "https://x.example/%zz" },
	} {
		card := metropolis
		change(&card)
		if _, err := Recommendation(card); !chat.Is(err, chat.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		forged := canon.MustMarshal(cardFields{Version: 1, Kind: card.Kind, Title: card.Title, Subtitle: card.Subtitle, Link: card.Link, Details: card.Details})
		if v := content(single(CardType, string(forged))).View(); v.Card != nil || v.Kind != KindUnknown {
			t.Errorf("%s, made by another client: shown as %v", name, v.Kind)
		}
	}
	later := canon.MustMarshal(cardFields{Version: 2, Kind: Film, Title: "a", Link: "https://x.example/"})
	if v := content(multi(ChooseOne, single(CardType, string(later)), single(Markdown, "a link"))).View(); v.Kind != KindText || v.Text != "a link" {
		t.Errorf("a later version: %+v", v)
	}
	if _, err := parseCard(make([]byte, MaxCard+1)); !chat.Is(err, chat.TooLarge) {
		t.Errorf("a large card: %v", err)
	}
}

func TestLargestCardFits(t *testing.T) {
	card := Card{Kind: Receipt, Title: strings.Repeat("\u20ac", 66), Subtitle: strings.Repeat("x", 200), Link: "https://x.example/" + strings.Repeat("(", MaxURL-18)}
	for range 8 {
		card.Details = append(card.Details, Detail{Label: strings.Repeat("x", 40), Value: strings.Repeat("x", 120)})
	}
	c, err := Recommendation(card)
	if err != nil {
		t.Fatal(err)
	}
	if v := open(t, c, flimmer).Content.View(); v.Kind != KindCard || len(v.Card.Details) != 8 {
		t.Errorf("%+v", v)
	}
}

func TestReactionsAreRefused(t *testing.T) {
	for _, emoji := range []string{"", "a\nb", "\x1b", strings.Repeat("x", 65), "\xff", "\u202e"} {
		if _, err := Reaction(chat.MessageID{}, emoji); !chat.Is(err, chat.Invalid) {
			t.Errorf("%q: %v", emoji, err)
		}
	}
}
