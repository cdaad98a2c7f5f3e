package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mimi"
	"letterlock/slot"
	"letterlock/vault"
)

// epochTries is how often a letter is sealed anew because the thread moved to another epoch meanwhile.
const epochTries = 5

// Sent says where a letter stands: it is durable and in the thread.
type Sent struct {
	ID  chat.MessageID `json:"id"`
	Seq uint64         `json:"seq"`
}

// Send puts a letter through the slot of the grant's thread.
//
// The letter with its message id is stored with each sealed post and its counter before that post leaves. After a failure the
// same idempotency key takes the same letter up again: sent before, it is answered as then; sealed before, the same bytes go out;
// refused for an old epoch, it is sealed anew with its message id. Without a key each call is a letter of its own.
func (a *Agent) Send(ctx context.Context, id chat.GrantID, l Letter) (Sent, error) {
	if err := l.check(); err != nil {
		return Sent{}, err
	}
	d, err := a.at(id)
	if err != nil {
		return Sent{}, err
	}
	defer d.mu.Unlock()
	if err := d.may(chat.Send, a.millis()); err != nil {
		return Sent{}, a.judge(ctx, d, err)
	}
	name, err := a.letterName(id, l.Key)
	if err != nil {
		return Sent{}, err
	}
	w, err := a.write(ctx, d, name, l)
	if err != nil {
		return Sent{}, a.judge(ctx, d, err)
	}
	if w.Seq == 0 {
		err = a.deliver(ctx, d, name, &w)
	}
	return Sent{ID: w.Message, Seq: w.Seq}, a.judge(ctx, d, err)
}

// letterName names a letter by its idempotency key's hash, since keys may say something about people.
func (a *Agent) letterName(id chat.GrantID, key string) (string, error) {
	if key == "" {
		var err error
		if key, err = a.oauth.random(); err != nil {
			return "", err
		}
	}
	h := sha256.Sum256([]byte(key))
	return under(id, hex.EncodeToString(h[:])), nil
}

// write finds the letter of before, or writes a new one. Storing it is seal's.
func (a *Agent) write(ctx context.Context, d *desk, name string, l Letter) (w letter, err error) {
	known := false
	err = a.vault.View(func(tx *vault.Tx) error {
		w, known, err = load[letter](tx, bucketLetters, name)
		return err
	})
	if err != nil {
		return w, err
	}
	if known {
		if w.Request != l.hash() {
			return w, chat.Errorf(chat.Mismatch, "this idempotency key was used for another letter")
		}
		return w, nil
	}
	content, err := a.compose(ctx, d, l)
	if err != nil {
		return w, err
	}
	data, err := mimi.Marshal(content)
	if err != nil {
		return w, err
	}
	key, err := a.oauth.random()
	if err != nil {
		return w, err
	}
	w = letter{Version: stateVersion, Request: l.hash(), Message: mimi.ID(a.sender(d.held.Grant), a.room(d.held), data, content.Salt),
		Content: data, Labels: l.labels(), Key: key, At: a.millis()}
	return w, nil
}

// sender is the URI under which posts of a grant are written.
func (a *Agent) sender(g chat.GrantID) string {
	return chat.AgentURI(a.config.Server.Host, a.config.Partner, g)
}

func (a *Agent) room(h held) string {
	return chat.ConversationURI(a.config.Server.Host, h.Conversation)
}

// deliver seals the letter for the thread's epoch and sends it, again after each change of epoch.
func (a *Agent) deliver(ctx context.Context, d *desk, name string, w *letter) error {
	for range epochTries {
		if len(w.Post) == 0 {
			if err := a.seal(ctx, d, name, w); err != nil {
				return err
			}
		}
		accepted, err := d.inbox.Post(ctx, api.InboxPost{Post: w.Post, IdempotencyKey: w.Key})
		switch {
		case err == nil:
			w.Seq, w.Content, w.Post = accepted.Seq, nil, nil
			return a.vault.Update(func(tx *vault.Tx) error { return save(tx, bucketLetters, name, *w) })
		case chat.Is(err, chat.StaleEpoch):
			w.Post = nil
		case chat.Is(err, chat.Invalid), chat.Is(err, chat.Forbidden), chat.Is(err, chat.TooLarge):
			return a.dropLetter(name, err)
		default:
			return err
		}
	}
	return chat.Errorf(chat.Unavailable, "the thread changes faster than letters can be sealed: try again")
}

// dropLetter forgets a letter that the server will never take, and passes the reason on.
func (a *Agent) dropLetter(name string, why error) error {
	err := a.vault.Update(func(tx *vault.Tx) error { return tx.Delete(bucketLetters, name) })
	if err != nil {
		return err
	}
	return why
}

// seal fetches the slot, judges it by the grant, and seals the letter. Epoch, counter and post are stored before the post leaves: no
// crash can use a counter twice or forget that an epoch was seen.
func (a *Agent) seal(ctx context.Context, d *desk, name string, w *letter) error {
	h := d.held
	p, err := a.takeSlot(ctx, d)
	if err != nil {
		return err
	}
	now := a.millis()
	h.SlotEpoch, h.SlotKey = p.Epoch, p.Key
	h.Counter = max(h.Counter+1, uint64(now)) // rises across a restored backup too
	header := slot.Header{Host: a.config.Server.Host, Conversation: h.Conversation, Epoch: h.SlotEpoch, Grant: h.Grant,
		Counter: h.Counter, Message: w.Message, At: now, Labels: w.Labels}
	if w.Post, err = slot.Seal(h.SlotKey, header, w.Content, ed25519.PrivateKey(d.key)); err != nil {
		return err
	}
	err = a.vault.Update(func(tx *vault.Tx) error {
		if err := save(tx, bucketGrants, h.Grant.String(), h); err != nil {
			return err
		}
		return save(tx, bucketLetters, name, *w)
	})
	if err != nil {
		return err
	}
	d.held = h
	return nil
}

// takeSlot fetches the newest announcement and judges it by what the grant pinned. Where the agent has a leaf in that very epoch, the
// key must also be the one that it derives itself.
func (a *Agent) takeSlot(ctx context.Context, d *desk) (slot.Pinned, error) {
	g, err := openGrant(d.held.Signed)
	if err != nil {
		return slot.Pinned{}, err
	}
	p := slot.Pinned{Conversation: g.Conversation, Signers: g.SlotSigners, Epoch: d.held.SlotEpoch, Key: d.held.SlotKey}
	announced, err := d.inbox.Slot(ctx)
	if err != nil {
		return p, err
	}
	p, err = p.Take(announced.Slot, a.millis())
	if err == nil && d.reader != nil {
		err = d.reader.checkSlot(p)
	}
	if chat.Is(err, chat.Tampered) {
		if err := a.keepEvidence(g.ID, "a slot was announced that the grant does not allow", announced.Slot); err != nil {
			return p, err
		}
	}
	return p, err
}

// TakeBack asks for the deletion of a letter that this partner sent for that person, under this grant or an earlier one.
func (a *Agent) TakeBack(ctx context.Context, id chat.GrantID, message chat.MessageID) error {
	d, err := a.at(id)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err := d.may(chat.Delete, a.millis()); err != nil {
		return a.judge(ctx, d, err)
	}
	return a.judge(ctx, d, a.takeBack(ctx, d, message))
}

func (a *Agent) takeBack(ctx context.Context, d *desk, message chat.MessageID) error {
	key, err := a.oauth.random()
	if err != nil {
		return err
	}
	for range epochTries {
		in, err := d.inbox.Grant(ctx)
		if err != nil {
			return err
		}
		signed, err := slot.SignTakeBack(slot.TakeBack{Host: a.config.Server.Host, Conversation: d.held.Conversation, Epoch: in.Epoch,
			Grant: d.held.Grant, Message: message, At: a.millis()}, ed25519.PrivateKey(d.key))
		if err != nil {
			return err
		}
		_, err = d.inbox.TakeBack(ctx, api.InboxTakeBack{TakeBack: signed, IdempotencyKey: key})
		if !chat.Is(err, chat.StaleEpoch) {
			return err
		}
	}
	return chat.Errorf(chat.Unavailable, "the thread changes faster than requests can be signed: try again")
}
