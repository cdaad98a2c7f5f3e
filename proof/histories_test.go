package proof

import (
	"math/rand/v2"
	"testing"
	"time"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
)

// history is a bundle of a history that nobody planned: every signature and proof in it holds, and what it says makes sense or does not.
// It follows from the seed.
func history(t testing.TB, seed uint64) []byte {
	w := newWorld(t)
	w.begin()
	r := rand.New(rand.NewPCG(seed, 4))
	if r.IntN(3) == 0 {
		w.witnessed(1+r.IntN(2), "w1.example", "w2.example")
	}
	threads := []chat.ConversationID{w.thread, {8}}
	var last grant.Hash // of the newest grant
	n := uint64(0)      // of the control chain
	for range 1 + r.IntN(14) {
		w.thread = threads[r.IntN(10)/9]
		w.now += r.Int64N(1_000_000)
		id, epoch := byte(1+r.IntN(3)), uint64(2+r.IntN(4))
		agent := w.agent
		if r.IntN(12) == 0 {
			w.agent = w.server // somebody else's key
		}
		granting := w.alice
		if r.IntN(4) == 0 {
			granting = chat.AccountID{9}
		}
		switch r.IntN(11) {
		case 0, 1, 2:
			g := w.grantAfter(id, chat.Actions(1+r.IntN(7)), n, last, r.IntN(3) == 0)
			w.record(g)
			last, n = grant.HashOf(g.Signed), n+1
		case 3:
			w.record(w.narrowing(id, chat.Actions(1+r.IntN(7)), n))
			n++
		case 4:
			w.record(w.revocation(id, n))
			n++
		case 5, 6:
			x := w.exposed(id, epoch)
			x.Granting = granting
			w.record(x)
		case 7:
			x := w.ended(id, epoch)
			x.Granting = granting
			w.record(x)
		case 8:
			w.record(w.open(id, epoch))
			if r.IntN(4) > 0 {
				w.record(w.closed(id, epoch))
			}
		case 9:
			w.record(w.post(id))
		case 10:
			w.record(&Delete{Conversation: w.thread, Grant: chat.GrantID{id}, Message: chat.MessageID{1}, Seq: 5, At: w.now})
		}
		w.agent = agent
		if r.IntN(25) == 0 {
			w.eraseLast(r.IntN(2) == 0)
		}
	}
	if r.IntN(4) == 0 {
		w.phoneStolen(keychain.Reason(1 + r.IntN(3)))
	}
	return w.finish()
}

// phoneStolen puts a second device into the key chain, which removes the phone for a reason.
func (w *world) phoneStolen(why keychain.Reason) {
	laptop, err := keychain.NewDeviceKey(w.rand)
	w.must(err)
	request, err := w.people.Request(chat.DeviceID{7}, "laptop", laptop)
	w.must(err)
	added, err := w.people.AddDevice(w.phone, request, time.UnixMilli(w.now))
	w.must(err)
	w.people, err = w.people.Append(added)
	w.must(err)
	removed, err := w.people.RemoveDevice(laptop, w.phoneID, why, time.UnixMilli(w.now))
	w.must(err)
	w.people, err = w.people.Append(removed)
	w.must(err)
	w.bundle.KeyChain = w.people.Entries()
	w.logKey(1)
	w.bundle.NewestKey.Index = w.logKey(2)
}

func (w *world) grantAfter(id byte, actions chat.Actions, n uint64, previous grant.Hash, replaces bool) *Grant {
	g, err := grant.Peek(w.grant(id, actions, n).Signed)
	w.must(err)
	if replaces {
		g.Previous = previous
	}
	signed, err := g.Sign(w.phone.Private())
	w.must(err)
	return &Grant{Signed: signed}
}

func (w *world) narrowing(id byte, actions chat.Actions, n uint64) *Narrow {
	x := grant.Narrowing{Grant: chat.GrantID{id}, Account: w.alice, Handle: "alice", Partner: "flimmer", Conversation: w.thread,
		Actions: actions, Counter: n, At: w.now, Device: w.phoneID}
	signed, err := x.Sign(w.phone.Private())
	w.must(err)
	return &Narrow{Signed: signed}
}

// eraseLast empties the newest record of a chain.
func (w *world) eraseLast(control bool) {
	chain := w.bundle.Access
	if control {
		chain = w.bundle.Control
	}
	if len(chain) == 0 {
		return
	}
	r, err := ParseRecord(chain[len(chain)-1].Record)
	w.must(err)
	r.Erase()
	chain[len(chain)-1].Record = r.Bytes()
}
