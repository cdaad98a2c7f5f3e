package mimi

import (
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"

	"letterlock/chat"
)

// Kind is what a message does, for the client that shows it.
type Kind int

// The kinds.
const (
	KindUnknown Kind = iota // nothing that we show: Text is a fall-back
	KindText
	KindReply
	KindEdit // what is shown instead follows from Card, Emoji and Text
	KindDelete
	KindReaction
	KindCard
)

// String is the kind's name.
func (k Kind) String() string {
	switch k {
	case KindText:
		return "text"
	case KindReply:
		return "reply"
	case KindEdit:
		return "edit"
	case KindDelete:
		return "delete"
	case KindReaction:
		return "reaction"
	case KindCard:
		return "card"
	}
	return "unknown"
}

// MarshalText writes the kind's name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// View is what a client shows of a content. Its texts are safe to print: no control characters but tab and line feed.
type View struct {
	Kind      Kind
	Text      string // of a card and of unknown content the fall-back
	Markdown  bool   // Text is Markdown; showing it as plain text is fine
	Card      *Card
	Emoji     string
	InReplyTo *chat.MessageID
	Replaces  *chat.MessageID
	Expires   *Expiration
}

// View says what to show of c. It never fails: what is not understood is KindUnknown with a sentence that says so.
func (c Content) View() View {
	v := View{InReplyTo: c.InReplyTo, Replaces: c.Replaces, Expires: c.Expires}
	if c.Replaces != nil && c.Body.Cardinality == Nothing {
		v.Kind = KindDelete
		return v
	}
	emoji, reacts := emojiOf(c)
	body := show(c.Body)
	v.Text, v.Markdown, v.Card = body.text, body.markdown, body.card
	switch {
	case c.Replaces != nil:
		v.Kind, v.Emoji = KindEdit, emoji
	case reacts:
		v.Kind, v.Emoji = KindReaction, emoji
	case v.Card != nil:
		v.Kind = KindCard
	case !body.understood:
		v.Kind = KindUnknown
	case c.InReplyTo != nil:
		v.Kind = KindReply
	default:
		v.Kind = KindText
	}
	return v
}

// emojiOf is the emoji of a reaction.
func emojiOf(c Content) (string, bool) {
	p := c.Body
	if p.Disposition != ReactionPart || c.InReplyTo == nil || p.Cardinality != Single || mediaType(p.ContentType) != "text/plain" {
		return "", false
	}
	emoji := string(p.Content)
	if !oneLine(emoji, 1, MaxReaction) {
		return "", false
	}
	return emoji, true
}

// body is what is shown of a part.
type body struct {
	text       string
	markdown   bool
	card       *Card
	understood bool // otherwise text is a sentence about what is not shown
}

func show(p Part) body {
	switch p.Cardinality {
	case Single:
		return showSingle(p)
	case External:
		return notShown("an attachment", p.ContentType, p.Reference.Description, p.Reference.Filename)
	case Multi:
		if p.Semantics == ChooseOne {
			return showOne(p.Parts)
		}
		return showAll(p.Parts, p.Semantics == SingleUnit)
	}
	return body{text: "(an empty message)"}
}

func showSingle(p Part) body {
	switch mediaType(p.ContentType) {
	case CardType:
		if card, err := parseCard(p.Content); err == nil {
			return body{card: &card, text: card.Markdown(), markdown: true, understood: true}
		}
	case "text/plain", "text/markdown":
		if utf8.Valid(p.Content) && inUTF8(p.ContentType) {
			markdown := mediaType(p.ContentType) == "text/markdown"
			return body{text: printable(string(p.Content)), markdown: markdown, understood: true}
		}
	}
	return notShown("a message", p.ContentType)
}

// showOne shows the first part that is understood; without one, what is said about the first.
func showOne(parts []Part) body {
	for _, p := range parts {
		if b := show(p); b.understood {
			return b
		}
	}
	if len(parts) == 0 {
		return show(Part{})
	}
	return show(parts[0])
}

// showAll shows the texts of all parts, one after the other, and the first card. It counts as understood if one part was, or if all
// were where they belong together.
func showAll(parts []Part, together bool) body {
	all := body{markdown: true, understood: together}
	var texts []string
	for _, p := range parts {
		b := show(p)
		texts = append(texts, b.text)
		all.markdown = all.markdown && b.markdown
		if all.card == nil {
			all.card = b.card
		}
		if together {
			all.understood = all.understood && b.understood
		} else {
			all.understood = all.understood || b.understood
		}
	}
	if !all.understood {
		all.card = nil
	}
	all.text = strings.Join(texts, "\n\n")
	return all
}

// notShown is the sentence that stands for a part that this client cannot show.
func notShown(what, contentType string, about ...string) body {
	s := "(" + what
	if t := oneLineOf(mediaType(contentType)); t != "" {
		s += " of type " + t
	}
	s += " that this client cannot show"
	for _, a := range about {
		if a = oneLineOf(a); a != "" {
			s += ": " + a
		}
	}
	return body{text: s + ")"}
}

// inUTF8 reports whether a text type says nothing else about its encoding.
func inUTF8(contentType string) bool {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	switch strings.ToLower(params["charset"]) {
	case "", "utf-8", "us-ascii":
		return true
	}
	return false
}

// printable makes text safe to show: it cannot steer a terminal or turn the text after it around.
func printable(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), r >= '\u202a' && r <= '\u202e':
			return utf8.RuneError
		}
		return r
	}, s)
}

// oneLineOf is printable in one line.
func oneLineOf(s string) string { return strings.Join(strings.Fields(printable(s)), " ") }
