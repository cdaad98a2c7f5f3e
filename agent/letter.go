package agent

import (
	"context"
	"crypto/sha256"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/mimi"
	"letterlock/slot"
)

// Letter is what to send under a grant: a text or a card.
type Letter struct {
	Text      string          `json:"text,omitempty"`
	Card      *Card           `json:"card,omitempty"`
	InReplyTo *chat.MessageID `json:"in_reply_to,omitempty"` // with a text
	Link      bool            `json:"link,omitempty"`        // make the card's url a share link, which is counted
	Interface string          `json:"interface,omitempty"`   // labels, out of those that the agreement lists
	Surface   string          `json:"surface,omitempty"`
	Variant   string          `json:"variant,omitempty"`
	Key       string          `json:"idempotency_key,omitempty"` // the same key again gives the same answer and sends nothing twice
}

// Card is a recommendation: one thing with one link.
type Card struct {
	Kind     string        `json:"kind"` // film, track, folder or receipt
	Title    string        `json:"title"`
	Subtitle string        `json:"subtitle,omitempty"`
	URL      string        `json:"url"` // http or https; put what it is about into the fragment
	Details  []mimi.Detail `json:"details,omitempty"`
}

const (
	maxKey = 128
	// maxReceived is the longest card that is taken from the backend; mimi's limits are tighter in each field.
	maxTitle = 200
)

func (l Letter) labels() slot.Labels {
	return slot.Labels{Interface: l.Interface, Surface: l.Surface, Variant: l.Variant}
}

// hash tells letters apart that come with one idempotency key.
func (l Letter) hash() [32]byte {
	l.Key = ""
	var card []string
	if l.Card != nil {
		card = []string{l.Card.Kind, l.Card.Title, l.Card.Subtitle, l.Card.URL}
		for _, d := range l.Card.Details {
			card = append(card, d.Label, d.Value)
		}
	}
	var reply []byte
	if l.InReplyTo != nil {
		reply = l.InReplyTo[:]
	}
	return sha256.Sum256(canon.MustMarshal([]any{l.Text, card, reply, l.Link, l.Interface, l.Surface, l.Variant}))
}

// check refuses a letter before anything is made of it.
func (l Letter) check() error {
	switch {
	case (l.Text == "") == (l.Card == nil):
		return chat.Errorf(chat.Invalid, "a letter has either a text or a card")
	case l.Card != nil && l.InReplyTo != nil:
		return chat.Errorf(chat.Invalid, "a card answers no message")
	case l.Link && l.Card == nil:
		return chat.Errorf(chat.Invalid, "only a card's link can be a share link")
	case len(l.Key) > maxKey:
		return chat.Errorf(chat.TooLarge, "the idempotency key has more than %d bytes", maxKey)
	case len(l.Text) > mimi.MaxText:
		return chat.Errorf(chat.TooLarge, "the text has more than %d bytes", mimi.MaxText)
	case !utf8.ValidString(l.Text):
		return chat.Errorf(chat.Invalid, "the text is not UTF-8")
	}
	return nil
}

// compose makes the content. A share link is asked for on the way.
func (a *Agent) compose(ctx context.Context, d *desk, l Letter) (mimi.Content, error) {
	if l.Card == nil {
		if l.InReplyTo != nil {
			return mimi.Reply(*l.InReplyTo, l.Text), nil
		}
		return mimi.Text(l.Text), nil
	}
	card := mimi.Card{Title: l.Card.Title, Subtitle: l.Card.Subtitle, Link: l.Card.URL, Details: l.Card.Details}
	if err := card.Kind.UnmarshalText([]byte(l.Card.Kind)); err != nil {
		return mimi.Content{}, err
	}
	if err := card.Check(); err != nil { // before a link is made of it
		return mimi.Content{}, err
	}
	if l.Link {
		link, err := a.shareLink(ctx, d, l)
		if err != nil {
			return mimi.Content{}, err
		}
		card.Link = link
	}
	return mimi.Recommendation(card)
}

// shareLink makes a share link of the card's: the server learns the base, which is one of the agreement's; what the link is about stays
// in the fragment, which only the encrypted message holds.
func (a *Agent) shareLink(ctx context.Context, d *desk, l Letter) (string, error) {
	base, about, _ := strings.Cut(l.Card.URL, "#")
	if !a.linkBase(base) {
		return "", chat.Errorf(chat.Invalid, "a share link begins with one of the agreement's link bases (%s); put what it is about after a #",
			strings.Join(a.config.LinkBases, ", "))
	}
	made, err := d.inbox.Link(ctx, api.InboxLink{Base: base, Interface: l.Interface, Surface: l.Surface, Variant: l.Variant})
	if err != nil {
		return "", err
	}
	if u, err := url.Parse(made.URL); err != nil || !strings.HasPrefix(made.URL, a.config.Server.URL+"/") || u.Fragment != "" {
		return "", chat.Errorf(chat.Tampered, "the server made a share link that leads elsewhere")
	}
	if about != "" {
		made.URL += "#" + about
	}
	return made.URL, nil
}

// linkBase reports whether an address says no more than the agreement does: it is one of the bases, so that nothing about person or thing
// reaches the server by the link.
func (a *Agent) linkBase(address string) bool {
	for _, base := range a.config.LinkBases {
		if address == base {
			return true
		}
	}
	return false
}

// plainText makes text of outside safe for a sentence: one line, no control characters, at most so many bytes.
func plainText(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	for len(s) > most {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
