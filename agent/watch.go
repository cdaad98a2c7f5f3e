package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/proof"
	"letterlock/vault"
)

const (
	watchEvery = 5 * time.Second
	watchWait  = 4        // seconds that one look at the log may wait for an inclusion
	maxPiece   = 64 << 10 // bytes of a piece of evidence

	tidyEvery   = time.Hour
	keepLetters = 24 * 3600_000 // ms for which a letter's idempotency key is known
)

// trust is what this agent judges commits by: the keys that it pinned.
func (a *Agent) trust() (grant.Trust, error) {
	s := a.config.Server
	return proof.Trust(s.Host, ed25519.PublicKey(s.ServerKey), s.LedgerVKey, s.VRFKey)
}

// openLedger takes up what is remembered of the ledger.
func (a *Agent) openLedger() (*proof.Log, error) {
	var remembered []byte
	err := a.vault.View(func(tx *vault.Tx) (err error) {
		remembered, _, err = tx.Get(bucketAgent, "ledger")
		return err
	})
	if err != nil {
		return nil, err
	}
	return proof.OpenLog(a.config.Server.LedgerVKey, remembered)
}

// promised is a promise of a page with the leaf that it is about.
type promised struct {
	leaf [32]byte
	pending
}

// openPromises checks the promises of a page: each is signed by the server and about an open record of this grant that is shown beside it.
func (a *Agent) openPromises(h held, page api.InboxChanges) ([]promised, error) {
	if len(page.Promises) != len(page.Opens) {
		return nil, chat.Errorf(chat.Unproven, "the server's promises and records do not fit")
	}
	var list []promised
	for i, data := range page.Promises {
		p, err := proof.OpenPromise(data, ed25519.PublicKey(a.config.Server.ServerKey), a.config.Server.Host)
		if err != nil {
			return nil, err
		}
		leaf, payload, err := proof.OpenDisclosure(page.Opens[i])
		if err != nil {
			return nil, err
		}
		open, ok := payload.(*proof.Open)
		if !ok || leaf != p.Leaf || open.Conversation != h.Conversation || open.Grant != h.Grant {
			return nil, chat.Errorf(chat.Unproven, "the server promised a record that is not of this access")
		}
		list = append(list, promised{leaf, pending{Version: stateVersion, Promise: data, Open: page.Opens[i], By: p.By, Period: open.Period, From: open.From}})
	}
	return list, nil
}

// prove looks in the ledger for each record that was promised and is not proven yet, waiting so many seconds. A promise that was broken
// ends reading; so does a ledger that contradicts what is remembered of it. One that may still be kept, or a server that cannot be
// reached, is no reason to.
func (a *Agent) prove(ctx context.Context, d *desk, waitSeconds int) error {
	waiting, err := a.unproven(d.held.Grant)
	if err != nil {
		return err
	}
	for _, p := range waiting {
		_, _, err := a.ledger.Prove(ctx, a.public, p.leaf, waitSeconds)
		switch {
		case err == nil:
			if err := a.proven(d.held.Grant, p); err != nil {
				return err
			}
		case chat.Is(err, chat.Tampered):
			return a.stop(d, err, append(contradiction(err), p.Promise, p.Open)...)
		case a.millis() <= p.By:
		case chat.Is(err, chat.NotFound), chat.Is(err, chat.Unproven):
			why := chat.Wrap(chat.Tampered, err, "the server broke its promise: a record of our access was not in the ledger in time")
			return a.stop(d, why, p.Promise, p.Open, a.ledger.Checkpoint().Signed)
		default:
			return err
		}
	}
	return nil
}

// contradiction is the two checkpoints by which a ledger contradicted itself.
func contradiction(err error) [][]byte {
	var e *proof.Evidence
	if errors.As(err, &e) {
		return [][]byte{e.Remembered, e.Shown}
	}
	return nil
}

func (a *Agent) unproven(g chat.GrantID) (list []promised, err error) {
	err = a.vault.View(func(tx *vault.Tx) error {
		return scan(tx, bucketPromises, g, "", func(name string) error {
			p, _, err := load[pending](tx, bucketPromises, name)
			if err != nil || p.Proven {
				return err
			}
			leaf, _, err := proof.OpenDisclosure(p.Open)
			list = append(list, promised{leaf, p})
			return err
		})
	})
	return list, err
}

// proven notes that a promise was kept, and what is now remembered of the ledger.
func (a *Agent) proven(g chat.GrantID, p promised) error {
	p.Proven = true
	return a.vault.Update(func(tx *vault.Tx) error {
		if err := tx.Put(bucketAgent, "ledger", a.ledger.Checkpoint().Signed); err != nil {
			return err
		}
		return save(tx, bucketPromises, under(g, leafName(p.leaf)), p.pending)
	})
}

// countersign compares each statement of an ended period with what came in it, and signs those that are true. One that is not is never
// signed: it is kept as evidence, and reading stops.
func (a *Agent) countersign(ctx context.Context, d *desk, statements [][]byte) error {
	for _, data := range statements {
		s, err := proof.ParseStatement(data)
		if err != nil {
			return err
		}
		c, err := a.counted(d.held.Grant, s.Period)
		if err != nil {
			return err
		}
		if *s != c.statement(a.config.Server.Host, d.held) {
			if c.Count > 0 && s.From == c.From && s.To > c.To {
				return chat.Errorf(chat.Unproven, "the server states that it served entries %d to %d, but %d was the last that came: it must serve the rest before it is countersigned", s.From, s.To, c.To)
			}
			why := chat.Errorf(chat.Tampered, "the server states an access that did not happen like that")
			return a.stop(d, why, data)
		}
		if err := d.inbox.CloseAccess(ctx, s.Receipt(ed25519.PrivateKey(d.key))); err != nil {
			return err
		}
		if err := a.receipted(d.held.Grant, c); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) counted(g chat.GrantID, period int64) (c access, err error) {
	err = a.vault.View(func(tx *vault.Tx) error {
		c, _, err = load[access](tx, bucketAccess, under(g, number(uint64(period))))
		return err
	})
	return c, err
}

// statement is what this agent would say of a period itself.
func (c access) statement(host string, h held) proof.Statement {
	return proof.Statement{Version: 1, Host: host, Conversation: h.Conversation, Grant: h.Grant, Epoch: c.Epoch, Period: c.Period, From: c.From, To: c.To, Count: c.Count}
}

// receipted drops what was kept of a period: its count, and the proven promises of the periods before.
func (a *Agent) receipted(g chat.GrantID, c access) error {
	return a.vault.Update(func(tx *vault.Tx) error {
		err := scan(tx, bucketPromises, g, "", func(name string) error {
			p, _, err := load[pending](tx, bucketPromises, name)
			if err != nil || p.Period >= c.Period || !p.Proven {
				return err
			}
			return tx.Delete(bucketPromises, name)
		})
		if err != nil {
			return err
		}
		return tx.Delete(bucketAccess, under(g, number(uint64(c.Period))))
	})
}

// lastReceipts signs what was served in periods that nobody asked a receipt for yet, before the key is erased. It is best effort: the
// server may be the reason why nothing is left to say.
func (a *Agent) lastReceipts(ctx context.Context, d *desk) {
	var list []access
	err := a.vault.View(func(tx *vault.Tx) error {
		return scan(tx, bucketAccess, d.held.Grant, "", func(name string) error {
			c, _, err := load[access](tx, bucketAccess, name)
			list = append(list, c)
			return err
		})
	})
	for _, c := range list {
		if err != nil {
			break
		}
		s := c.statement(a.config.Server.Host, d.held)
		err = d.inbox.CloseAccess(ctx, s.Receipt(ed25519.PrivateKey(d.key)))
	}
	if err != nil {
		a.log.Warn("the last receipt of a grant was not taken", slog.String("grant", d.held.Grant.String()), slog.String("kind", string(chat.KindOf(err))))
	}
}

// Evidence is something by which somebody was caught, with the signed pieces that show it.
type Evidence struct {
	ID     string       `json:"id"`
	At     int64        `json:"at"` // ms
	Grant  chat.GrantID `json:"grant"`
	Detail string       `json:"detail"`
	Pieces [][]byte     `json:"pieces"`
}

// keepEvidence stores what somebody was caught by.
func (a *Agent) keepEvidence(g chat.GrantID, detail string, pieces ...[]byte) error {
	for i := range pieces {
		pieces[i] = pieces[i][:min(len(pieces[i]), maxPiece)]
	}
	name := fmt.Sprintf("%s/%s", number(uint64(a.millis())), chat.NewGrantID())
	return a.vault.Update(func(tx *vault.Tx) error {
		return save(tx, bucketEvidence, name, evidence{Version: stateVersion, At: a.millis(), Grant: g, Detail: detail, Pieces: pieces})
	})
}

// Evidence lists what was kept, oldest first, after the id given.
func (a *Agent) Evidence(after string, limit int) (list []Evidence, err error) {
	err = a.vault.View(func(tx *vault.Tx) error {
		names, err := tx.List(bucketEvidence, after, limit)
		if err != nil {
			return err
		}
		for _, name := range names {
			e, _, err := load[evidence](tx, bucketEvidence, name)
			if err != nil {
				return err
			}
			list = append(list, Evidence{ID: name, At: e.At, Grant: e.Grant, Detail: e.Detail, Pieces: e.Pieces})
		}
		return nil
	})
	return list, err
}

// Watch follows up promises until ctx ends: a record that is not in the ledger in time ends reading at once, not at the next call.
func (a *Agent) Watch(ctx context.Context) {
	look, tidy := time.NewTicker(watchEvery), time.NewTicker(tidyEvery)
	defer look.Stop()
	defer tidy.Stop()
	for {
		a.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		case <-tidy.C:
			if err := a.tidy(); err != nil {
				a.log.Error("old state could not be tidied away", slog.Any("error", err))
			}
		}
	}
}

// tidy forgets letters whose idempotency keys have had their day, sent or not. Their names are hashes: only their values tell their age.
func (a *Agent) tidy() error {
	return a.vault.Update(func(tx *vault.Tx) error {
		last := ""
		for {
			names, err := tx.List(bucketLetters, last, scanBatch)
			if err != nil || len(names) == 0 {
				return err
			}
			for _, name := range names {
				last = name
				l, _, err := load[letter](tx, bucketLetters, name)
				if err != nil {
					return err
				}
				if l.At > a.millis()-keepLetters {
					continue
				}
				if err := tx.Delete(bucketLetters, name); err != nil {
					return err
				}
			}
		}
	})
}

// look proves what is waiting, a few grants at a time.
func (a *Agent) look(ctx context.Context) {
	ids, err := a.withPromises()
	if err != nil {
		a.log.Error("the promises cannot be read", slog.Any("error", err))
		return
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, id := range ids {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			a.lookAt(ctx, id)
		})
	}
	wg.Wait()
}

func (a *Agent) lookAt(ctx context.Context, id chat.GrantID) {
	d, err := a.at(id)
	if err != nil {
		return
	}
	defer d.mu.Unlock()
	if d.held.Phase != Live {
		return
	}
	if err := a.prove(ctx, d, watchWait); err != nil && ctx.Err() == nil {
		a.log.Warn("a promised record could not be proven", slog.String("grant", id.String()), slog.String("kind", string(chat.KindOf(err))))
	}
}

// withPromises lists the grants with promises that are not proven.
func (a *Agent) withPromises() (ids []chat.GrantID, err error) {
	err = a.vault.View(func(tx *vault.Tx) error {
		last := ""
		for {
			names, err := tx.List(bucketPromises, last, scanBatch)
			if err != nil || len(names) == 0 {
				return err
			}
			for _, name := range names {
				last = name
				p, _, err := load[pending](tx, bucketPromises, name)
				if err != nil {
					return err
				}
				id, err := chat.ParseGrantID(name[:32])
				if err != nil {
					return err
				}
				if !p.Proven && (len(ids) == 0 || ids[len(ids)-1] != id) {
					ids = append(ids, id)
				}
			}
		}
	})
	return ids, err
}
