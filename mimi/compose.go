package mimi

import (
	"time"

	"letterlock/chat"
)

// What makes contents. Each draws a fresh salt; Marshal checks the limits.

// Text says something.
func Text(body string) Content { return content(text(Render, body)) }

// Reply says something in answer to a message.
func Reply(to chat.MessageID, body string) Content {
	c := Text(body)
	c.InReplyTo = &to
	return c
}

// Edit says something in place of an earlier message of the same sender, named by its first version.
func Edit(replaces chat.MessageID, body string) Content {
	c := Text(body)
	c.Replaces = &replaces
	return c
}

// ExpiresAt is an expiry at a time, rounded up to the second.
func ExpiresAt(t time.Time) *Expiration {
	return &Expiration{Time: uint32((t.UnixMilli() + 999) / 1000)}
}

// Over is when a message is to be forgotten, in ms since 1970; 0: never, or so long after it was read.
func (c Content) Over() int64 {
	if c.Expires == nil || c.Expires.Relative {
		return 0
	}
	return int64(c.Expires.Time) * 1000
}

// Delete takes back an earlier message of the same sender, named by its first version, or a reaction.
func Delete(replaces chat.MessageID) Content {
	c := content(Part{Disposition: Render})
	c.Replaces = &replaces
	return c
}

// Reaction puts an emoji under a message.
func Reaction(to chat.MessageID, emoji string) (Content, error) {
	if !oneLine(emoji, 1, MaxReaction) {
		return Content{}, chat.Errorf(chat.Invalid, "reaction: use one emoji, at most %d bytes, without control characters", MaxReaction)
	}
	c := content(text(ReactionPart, emoji))
	c.InReplyTo = &to
	return c, nil
}

// Recommendation shows a card, and a Markdown link where cards are not known.
func Recommendation(card Card) (Content, error) {
	encoded, err := card.marshal()
	if err != nil {
		return Content{}, err
	}
	return content(Part{
		Disposition: Render,
		Cardinality: Multi,
		Semantics:   ChooseOne,
		Parts: []Part{
			{Disposition: Render, Cardinality: Single, ContentType: CardType, Content: encoded},
			{Disposition: Render, Cardinality: Single, ContentType: Markdown, Content: []byte(card.Markdown())},
		},
	}), nil
}

func content(body Part) Content {
	c := Content{Body: body}
	random := chat.NewToken()
	copy(c.Salt[:], random[:])
	return c
}

func text(d Disposition, body string) Part {
	return Part{Disposition: d, Cardinality: Single, ContentType: PlainText, Content: []byte(body)}
}
