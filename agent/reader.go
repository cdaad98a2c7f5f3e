package agent

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mimi"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/slot"
)

// errRemoved means that the thread's people took the agent's leaf away.
var errRemoved = errors.New("agent: removed from the thread")

// reader is a reading grant's view of its thread: the group, and the messages folded into what is shown. It does no I/O; whoever moves
// it stores what came of it, or throws it away.
type reader struct {
	trust grant.Trust
	group *mls.Group

	thread grant.Thread    // of the group's epoch
	slot   slot.PrivateKey // of the epoch slotOf; 0: not derived
	slotOf uint64

	timeline mimi.Timeline
	about    map[chat.MessageID]*about // by the id of the first version
	last     uint64                    // number of the last line
}

// about is what is known of a shown message besides what it says.
type about struct {
	first   line
	partner string   // through whose slot it came; empty: from the person's own device
	lines   []uint64 // that hold its versions
	touched uint64   // number of the last line that changed it
}

// join enters the thread by its Welcome and judges the thread as it stands.
func join(trust grant.Trust, h held, key grantKey, welcome []byte) (*reader, error) {
	kp, err := mls.UnmarshalKeyPackage(h.KeyPackage)
	if err != nil {
		return nil, err
	}
	defer kp.Wipe()
	g, err := mls.Join(welcome, kp, mls.JoinOptions{Signer: ed25519.PrivateKey(key)})
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the thread's welcome cannot be opened")
	}
	return newReader(trust, h, g)
}

// newReader judges the thread of a group that was joined or stored.
func newReader(trust grant.Trust, h held, g *mls.Group) (*reader, error) {
	thread, err := grant.JudgeJoin(g.Roster(), trust)
	if err != nil {
		return nil, err
	}
	e, ok := thread.Find(h.Grant)
	switch {
	case !bytes.Equal(g.ID(), h.Conversation[:]):
		return nil, chat.Errorf(chat.Tampered, "the welcome leads into another conversation")
	case !ok || e.Hash != grant.HashOf(h.Signed):
		return nil, chat.Errorf(chat.Tampered, "the thread lists another grant than the one that was given")
	}
	return &reader{trust: trust, group: g, thread: thread, about: map[chat.MessageID]*about{}}, nil
}

// take reads one entry of the log. It returns the lines that came of it: none for handshakes and for what cannot be read, since what
// one member sends must not keep the others' words from being read.
func (r *reader) take(e api.Entry) ([]line, error) {
	switch e.Kind {
	case api.KindCommit:
		return nil, r.takeCommit(e)
	case api.KindProposal:
		return nil, r.takeProposal(e)
	}
	if e.Tombstone || e.Epoch != r.group.Epoch() {
		return nil, nil
	}
	var l line
	var err error
	switch e.Kind {
	case api.KindMessage:
		l, err = r.openMessage(e)
	case api.KindPost:
		l, err = r.openPost(e)
	case api.KindTakeBack:
		l, err = r.openTakeBack(e)
	default:
		return nil, nil // a kind of a later version
	}
	if err != nil {
		return nil, nil
	}
	return []line{l}, nil
}

// takeCommit moves to the next epoch if the commit is valid. No clock is asked: all members judge alike.
func (r *reader) takeCommit(e api.Entry) error {
	p, err := r.group.Process(e.Body, time.Time{})
	if err != nil {
		return chat.Wrap(chat.Tampered, err, "the server served a commit that does not hold")
	}
	if p.Commit == nil {
		return chat.Errorf(chat.Tampered, "the server served something else as a commit")
	}
	verdict, err := grant.Judge(p.Commit.Change(), r.trust)
	if err != nil {
		p.Commit.Discard()
		return chat.Wrap(chat.Tampered, err, "the server served a commit that is not valid")
	}
	next, err := p.Commit.Merge()
	if errors.Is(err, mls.ErrRemoved) {
		return errRemoved
	}
	if err != nil {
		return err
	}
	r.group, r.thread, r.slotOf, r.slot = next, verdict.After, 0, slot.PrivateKey{}
	return nil
}

func (r *reader) takeProposal(e api.Entry) error {
	p, err := r.group.Process(e.Body, time.Time{})
	if err != nil || p.Group == nil {
		return chat.Wrap(chat.Tampered, err, "the server served a proposal that does not hold")
	}
	r.group = p.Group
	return nil
}

// openMessage reads what a person's device sent.
func (r *reader) openMessage(e api.Entry) (line, error) {
	p, err := r.group.Process(e.Body, time.Time{})
	if err != nil {
		return line{}, err
	}
	if p.Application == nil {
		return line{}, chat.Errorf(chat.Invalid, "not an application message")
	}
	id, err := chat.ParseIdentity(p.Application.Sender.Identity)
	if err != nil {
		return line{}, err
	}
	if id.IsAgent() {
		return line{}, chat.Errorf(chat.Forbidden, "agents write through the slot")
	}
	return r.line(e, chat.AccountURI(r.thread.Host, id.Handle), id.Handle, p.Application.Plaintext)
}

// openPost reads what an agent put through the slot. Every member could have sealed it: the signature under the key of the thread's
// entry says who wrote.
func (r *reader) openPost(e api.Entry) (line, error) {
	h, err := slot.Peek(e.Body)
	if err != nil {
		return line{}, err
	}
	entry, ok := r.thread.Find(h.Grant)
	if !ok || !entry.Actions.Has(chat.Send) || !r.here(h.Host, h.Conversation, h.Epoch) {
		return line{}, chat.Errorf(chat.Forbidden, "the post does not belong here")
	}
	key, err := r.slotKey()
	if err != nil {
		return line{}, err
	}
	_, content, err := slot.Open(e.Body, key, entry.AgentKey[:])
	if err != nil {
		return line{}, err
	}
	l, err := r.line(e, chat.AgentURI(r.thread.Host, r.thread.Partner, h.Grant), entry.Handle, content)
	if err == nil && l.Message != h.Message {
		err = chat.Errorf(chat.Tampered, "the post's header names another message")
	}
	l.Account = entry.Account
	return l, err
}

// openTakeBack reads an agent's signed delete. It takes back what the same partner posted for the same person.
func (r *reader) openTakeBack(e api.Entry) (line, error) {
	t, err := slot.PeekTakeBack(e.Body)
	if err != nil {
		return line{}, err
	}
	entry, ok := r.thread.Find(t.Grant)
	if !ok || !entry.Actions.Has(chat.Delete) || !r.here(t.Host, t.Conversation, t.Epoch) {
		return line{}, chat.Errorf(chat.Forbidden, "the take-back does not belong here")
	}
	if _, err := slot.OpenTakeBack(e.Body, entry.AgentKey[:]); err != nil {
		return line{}, err
	}
	shown, ok := r.timeline.Find(t.Message)
	if !ok {
		return line{}, chat.Errorf(chat.NotFound, "the take-back is about something that was not seen")
	}
	of := r.about[shown.ID]
	if of.partner != r.thread.Partner || of.first.Account != entry.Account {
		return line{}, chat.Errorf(chat.Forbidden, "the take-back is about somebody else's message")
	}
	data, err := mimi.Marshal(mimi.Delete(shown.ID))
	return line{Version: stateVersion, Seq: e.Seq, At: e.At, Message: takeBackID(e.Body), Sender: shown.Sender, Handle: entry.Handle,
		Account: entry.Account, Content: data}, err
}

// takeBackID names a take-back in our own order of lines; it is no message of the thread.
func takeBackID(body []byte) chat.MessageID {
	id := chat.MessageID(sha256.Sum256(body))
	id[0] = 0 // message ids begin with 1
	return id
}

func (r *reader) line(e api.Entry, sender, handle string, content []byte) (line, error) {
	m, err := mimi.Open(content, sender, chat.ConversationURI(r.thread.Host, r.conversation()))
	return line{Version: stateVersion, Seq: e.Seq, At: e.At, Message: m.ID, Sender: sender, Handle: handle, Content: content}, err
}

// conversation is the group's id; newReader compared it with the grant's.
func (r *reader) conversation() chat.ConversationID { return chat.ConversationID(r.group.ID()) }

// here reports whether something was made for this thread in this epoch.
func (r *reader) here(host string, c chat.ConversationID, epoch uint64) bool {
	return host == r.thread.Host && c == r.conversation() && epoch == r.group.Epoch()
}

// slotKey derives the key pair of the epoch's slot.
func (r *reader) slotKey() (slot.PrivateKey, error) {
	if r.slotOf == r.group.Epoch() {
		return r.slot, nil
	}
	key, _, err := deriveSlot(r.group)
	if err == nil {
		r.slot, r.slotOf = key, r.group.Epoch()
	}
	return key, err
}

func deriveSlot(g *mls.Group) (slot.PrivateKey, slot.PublicKey, error) {
	secret, err := g.Export(slot.Label, g.Roster().ConfirmedTranscriptHash(), slot.Length)
	if err != nil {
		return slot.PrivateKey{}, slot.PublicKey{}, err
	}
	return slot.Derive(secret)
}

// checkSlot compares an announced slot with the one derived from the group, where both are of one epoch.
func (r *reader) checkSlot(p slot.Pinned) error {
	if p.Epoch != r.group.Epoch() {
		return nil
	}
	_, own, err := deriveSlot(r.group)
	if err != nil {
		return err
	}
	if own != p.Key {
		return chat.Errorf(chat.Tampered, "the slot was announced with another key than the thread's")
	}
	return nil
}

// people counts the persons whose devices are in the thread.
func people(g *roster.Group) int {
	seen := map[string]bool{}
	for _, m := range g.Members() {
		if id, err := chat.ParseIdentity(m.Identity); err == nil && !id.IsAgent() {
			seen[id.Handle] = true
		}
	}
	return len(seen)
}

// fold adds a line to what is shown. It says which stored lines are to be forgotten, and whether the line is worth keeping.
func (r *reader) fold(n uint64, l line) (forget []uint64, keep bool) {
	m := mimi.Message{ID: l.Message, Sender: l.Sender}
	if len(l.Content) > 0 { // empty: what it said was taken back
		c, err := mimi.Unmarshal(l.Content)
		if err != nil {
			return nil, false
		}
		m.Content = c
	}
	effect := r.timeline.Add(m)
	if effect == mimi.Ignored || effect == mimi.Refused {
		return nil, false
	}
	of := r.subject(m, effect, l)
	if of == nil {
		return nil, false
	}
	r.last, of.touched = n, n
	switch effect {
	case mimi.Deleted:
		forget, of.lines = of.lines, nil
	case mimi.Added, mimi.Edited:
		of.lines = append(of.lines, n)
	}
	return forget, true
}

// subject is the shown message that a line is about.
func (r *reader) subject(m mimi.Message, effect mimi.Effect, l line) *about {
	target := m.ID
	switch {
	case effect == mimi.Added:
		of := &about{first: l}
		if id, err := chat.ParseIdentity([]byte(l.Sender)); err == nil && id.IsAgent() {
			of.partner = id.Partner
		}
		of.first.Content = nil
		r.about[m.ID] = of
		return of
	case m.Content.Replaces != nil:
		target = *m.Content.Replaces
	case m.Content.InReplyTo != nil:
		target = *m.Content.InReplyTo
	}
	shown, ok := r.timeline.Find(target)
	if !ok {
		return nil
	}
	return r.about[shown.ID]
}

// Message is a message of a thread as it stands, in plaintext.
type Message struct {
	ID        chat.MessageID  `json:"id"`
	Seq       uint64          `json:"seq"` // in the thread's log
	At        int64           `json:"at"`  // ms, by the server's clock
	Sender    string          `json:"sender"`
	Through   string          `json:"through,omitempty"` // the partner in whose app it was sent
	Kind      string          `json:"kind"`              // text, reply, card, delete or unknown
	Text      string          `json:"text,omitempty"`
	Card      *Card           `json:"card,omitempty"`
	InReplyTo *chat.MessageID `json:"in_reply_to,omitempty"`
	Edited    bool            `json:"edited,omitempty"`
	Deleted   bool            `json:"deleted,omitempty"`
	Reactions []Reaction      `json:"reactions,omitempty"`
}

// Reaction is an emoji under a message.
type Reaction struct {
	Sender string `json:"sender"` // URI
	Emoji  string `json:"emoji"`
}

// changed lists messages that changed after a line, in the order of their last changes; more tells that there are others.
func (r *reader) changed(after uint64, limit int) (list []Message, upTo uint64, more bool) {
	type hit struct {
		shown mimi.Shown
		of    *about
	}
	var hits []hit
	for _, s := range r.timeline.Shown() {
		if of := r.about[s.ID]; of != nil && of.touched > after {
			hits = append(hits, hit{s, of})
		}
	}
	slices.SortFunc(hits, func(a, b hit) int { return int(int64(a.of.touched) - int64(b.of.touched)) })
	if more = len(hits) > limit; more {
		hits = hits[:limit]
	}
	upTo = max(after, r.last)
	for _, h := range hits {
		list = append(list, show(h.shown, h.of))
		if more {
			upTo = h.of.touched
		}
	}
	return list, upTo, more
}

func show(s mimi.Shown, of *about) Message {
	m := Message{ID: s.ID, Seq: of.first.Seq, At: of.first.At, Sender: of.first.Handle, Through: of.partner, Kind: s.View.Kind.String(),
		Text: s.View.Text, InReplyTo: s.View.InReplyTo, Edited: s.Edited, Deleted: s.Deleted}
	if c := s.View.Card; c != nil {
		m.Card = &Card{Kind: c.Kind.String(), Title: c.Title, Subtitle: c.Subtitle, URL: c.Link, Details: c.Details}
	}
	for _, mark := range s.Reactions {
		m.Reactions = append(m.Reactions, Reaction{Sender: mark.Sender, Emoji: mark.Emoji})
	}
	return m
}
