package delivery

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls/roster"
	"letterlock/store"
)

// admit says whether an entry may be the next of a conversation that stands at h. It is asked twice, in vain early by the caller,
// for good by the appender, with the same answer unless a commit came between.
func (h *head) admit(it *item) error {
	switch it.kind() {
	case api.KindCommit:
		if it.entry.Epoch != h.epoch {
			return staleEpoch(it.entry.Epoch, h.epoch)
		}
		for _, leaf := range h.waiting {
			if !slices.Contains(it.removes, leaf) {
				return chat.Errorf(chat.Blocked, "the next commit must remove leaf %d, as was proposed", leaf)
			}
		}
		return nil
	case api.KindMessage, api.KindPost:
		if it.entry.Epoch != h.epoch {
			return staleEpoch(it.entry.Epoch, h.epoch)
		}
	}
	if len(h.waiting) > 0 && !it.ours {
		return chat.Errorf(chat.Blocked, "a proposed removal must be committed before anything else is taken")
	}
	return nil
}

func staleEpoch(made, current uint64) error {
	return chat.Errorf(chat.StaleEpoch, "made for epoch %d, the conversation is in %d: process what is new, then send it again", made, current)
}

// checkSender refuses who has no leaf in the current epoch.
func (h *head) checkSender(identity string) error {
	if _, ok := h.leaves[identity]; !ok {
		return errNoConversation
	}
	return nil
}

// dedupKeySize is the length of a client's dedup key, in bytes.
const dedupKeySize = 16

func checkDedupKey(key []byte) error {
	if len(key) != dedupKeySize {
		return chat.Errorf(chat.Invalid, "dedup_key: want %d random bytes, got %d", dedupKeySize, len(key))
	}
	return nil
}

// checkMessage looks at the outside of an application message: all that can be seen of it without keys (RFC 9420 section 6.3).
func checkMessage(id chat.ConversationID, message []byte) (epoch uint64, err error) {
	if len(message) > api.MaxMessage {
		return 0, chat.Errorf(chat.TooLarge, "a message has at most %d bytes", api.MaxMessage)
	}
	r := roster.NewReader(message)
	version, format := r.Uint16(), roster.WireFormat(r.Uint16())
	group, epoch, content := r.Opaque(), r.Uint64(), roster.ContentType(r.Uint8())
	r.Opaque() // authenticated data
	r.Opaque() // encrypted sender data
	r.Opaque() // ciphertext
	switch err := r.Done(); {
	case err != nil || version != roster.Version || format != roster.WirePrivateMessage || content != roster.ContentApplication:
		return 0, chat.Wrap(chat.Invalid, err, "the message must be an application message in an MLS PrivateMessage")
	case !bytes.Equal(group, id[:]):
		return 0, chat.Errorf(chat.Invalid, "the message is for another conversation")
	}
	return epoch, nil
}

// repeated looks for an entry with the item's dedup key. The same bytes of the same sender are answered as the first time; anything
// else under that key is a Mismatch. A body that was deleted since is compared by its hash.
func repeated(tx *store.Tx, it *item) (answer api.Accepted, found bool, err error) {
	if it.entry.Dedup == nil {
		return answer, false, nil
	}
	e, err := tx.EntryByDedup(it.entry.Conversation, it.entry.Dedup)
	if errors.Is(err, store.ErrNotFound) {
		return answer, false, nil
	}
	if err != nil {
		return answer, false, err
	}
	body := it.entry.Body
	if e.Tombstone {
		hash := sha256.Sum256(body)
		body = hash[:]
	}
	if e.Kind != it.entry.Kind || e.Account != it.entry.Account || e.Device != it.entry.Device || !bytes.Equal(e.Body, body) {
		return answer, true, chat.Errorf(chat.Mismatch, "this key was used for something else: draw a new one")
	}
	return acceptedAs(&e), true, nil
}

// acceptedAs is the answer to an entry that is durable.
func acceptedAs(e *store.Entry) api.Accepted {
	epoch := e.Epoch
	if api.EntryKind(e.Kind) == api.KindCommit {
		epoch++
	}
	return api.Accepted{Seq: e.Seq, Epoch: epoch, At: e.At}
}
