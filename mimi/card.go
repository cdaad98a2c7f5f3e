package mimi

import (
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"letterlock/canon"
	"letterlock/chat"
)

// CardKind is what a card recommends.
type CardKind uint64

// The kinds of card.
const (
	Film CardKind = iota + 1
	Track
	Folder
	Receipt
)

var cardKinds = [...]string{Film: "film", Track: "track", Folder: "folder", Receipt: "receipt"}

// String is the kind's name.
func (k CardKind) String() string {
	if k < Film || k > Receipt {
		return "unknown"
	}
	return cardKinds[k]
}

// MarshalText writes the kind's name.
func (k CardKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the kind's name.
func (k *CardKind) UnmarshalText(name []byte) error {
	for i := Film; i <= Receipt; i++ {
		if i.String() == string(name) {
			*k = i
			return nil
		}
	}
	return chat.Errorf(chat.Invalid, "card: the kinds are film, track, folder and receipt")
}

// Card is a recommendation: one thing with one link. Limits in bytes.
type Card struct {
	Kind     CardKind `json:"kind"`
	Title    string   `json:"title"`              // 1 to 200
	Subtitle string   `json:"subtitle,omitempty"` // 0 to 200
	Link     string   `json:"link"`               // 1 to 2,048; http or https; the fragment stays
	Details  []Detail `json:"details,omitempty"`  // 0 to 8
}

// Detail is a small fact on a card.
type Detail struct {
	_     struct{} `cbor:",toarray"`
	Label string   `json:"label"` // 1 to 40
	Value string   `json:"value"` // 1 to 120
}

const cardVersion = 1

// cardFields is a card as it is encoded, by package canon.
type cardFields struct {
	_        struct{} `cbor:",toarray"`
	Version  uint64
	Kind     CardKind
	Title    string
	Subtitle string
	Link     string
	Details  []Detail
}

// Check says what is wrong with a card.
func (c Card) Check() error {
	if c.Kind < Film || c.Kind > Receipt {
		return chat.Errorf(chat.Invalid, "card: the kinds are film, track, folder and receipt")
	}
	if !oneLine(c.Title, 1, 200) {
		return chat.Errorf(chat.Invalid, "card: the title has 1 to 200 bytes without control or direction characters")
	}
	if !oneLine(c.Subtitle, 0, 200) {
		return chat.Errorf(chat.Invalid, "card: the subtitle has at most 200 bytes without control or direction characters")
	}
	if len(c.Details) > 8 {
		return chat.Errorf(chat.Invalid, "card: at most 8 details")
	}
	for _, d := range c.Details {
		if !oneLine(d.Label, 1, 40) || !oneLine(d.Value, 1, 120) {
			return chat.Errorf(chat.Invalid, "card: a detail has a label of 1 to 40 and a value of 1 to 120 bytes without control or direction characters")
		}
	}
	return checkLink(c.Link)
}

// urlForm is the characters of RFC 3986 section 2. Percent signs are checked by url.Parse.
var urlForm = regexp.MustCompile(`^[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+$`)

// checkLink accepts links that go where they seem to go: no user names before an @, no other scheme, no look-alike characters.
func checkLink(link string) error {
	if len(link) > MaxURL || !urlForm.MatchString(link) {
		return chat.Errorf(chat.Invalid, "card: the link has 1 to %d characters, those of a URL", MaxURL)
	}
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		return chat.Errorf(chat.Invalid, "card: the link is an absolute http or https URL without a user name")
	}
	return nil
}

func (c Card) marshal() ([]byte, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	return canon.Marshal(cardFields{Version: cardVersion, Kind: c.Kind, Title: c.Title, Subtitle: c.Subtitle, Link: c.Link, Details: c.Details})
}

// parseCard reads a card. One that fails is not shown as a card.
func parseCard(data []byte) (Card, error) {
	if len(data) > MaxCard {
		return Card{}, tooLarge("a card", MaxCard)
	}
	var f cardFields
	if err := canon.Unmarshal(data, &f); err != nil {
		return Card{}, chat.Wrap(chat.Invalid, err, "card: malformed")
	}
	if f.Version != cardVersion {
		return Card{}, chat.Errorf(chat.Incompatible, "card: version %d is unknown", f.Version)
	}
	c := Card{Kind: f.Kind, Title: f.Title, Subtitle: f.Subtitle, Link: f.Link, Details: f.Details}
	return c, c.Check()
}

var (
	markdownText = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", `\<`, ">", `\>`, "&", `\&`, "~", `\~`)
	markdownLink = strings.NewReplacer("(", `\(`, ")", `\)`)
	reference    = regexp.MustCompile(`&(#?[0-9A-Za-z]+;)`) // a character reference, which Markdown would replace
)

// Markdown is the card as one line for clients that do not know cards: a link, then the subtitle. Nothing in a card can end the
// link or begin another element.
func (c Card) Markdown() string {
	link := reference.ReplaceAllString(markdownLink.Replace(c.Link), `\&$1`)
	line := "[" + markdownText.Replace(c.Title) + "](" + link + ")"
	if c.Subtitle != "" {
		line += " " + markdownText.Replace(c.Subtitle)
	}
	return line
}

// oneLine accepts UTF-8 of least to most bytes that shows in one line and in one direction.
func oneLine(s string, least, most int) bool {
	if len(s) < least || len(s) > most || !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	})
}
