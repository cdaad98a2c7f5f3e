package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"strconv"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls"
	"letterlock/proof"
	"letterlock/vault"
)

const (
	pageLimit  = 200      // entries asked for at once
	maxPages   = 1000     // in one call: a thread that grows faster than it is read is read on by the next call
	periodSkew = 2 * 60e3 // ms by which the server's clock may differ from ours at the turn of an access period
)

// Changes are the messages of a thread that changed.
type Changes struct {
	Messages []Message `json:"messages"`
	State    string    `json:"state"` // pass as since next time
	More     bool      `json:"more"`
}

// Changes reads what is new in a grant's thread and answers with the messages that changed since a state; with the empty one from the
// first message that the grant may read. At most limit messages come at once.
func (a *Agent) Changes(ctx context.Context, id chat.GrantID, since string, limit int) (Changes, error) {
	d, err := a.at(id)
	if err != nil {
		return Changes{}, err
	}
	defer d.mu.Unlock()
	if err := d.may(chat.Read, a.millis()); err != nil {
		return Changes{}, a.judge(ctx, d, err)
	}
	if d.held.Phase == Stopped {
		return Changes{}, chat.Errorf(chat.Tampered, "reading was stopped: %s", d.held.Detail)
	}
	if err := a.judge(ctx, d, a.pull(ctx, d)); err != nil {
		return Changes{}, err
	}
	return d.changes(since, limit)
}

func (d *desk) changes(since string, limit int) (Changes, error) {
	var after uint64
	if since != "" {
		var err error
		if after, err = strconv.ParseUint(since, 16, 64); err != nil || after > d.held.Lines {
			return Changes{}, chat.Errorf(chat.Expired, "since is not a state of this agent: leave it out to begin with the first message")
		}
	}
	list, upTo, more := d.reader.changed(after, limit)
	if list == nil {
		list = []Message{}
	}
	return Changes{Messages: list, State: strconv.FormatUint(upTo, 16), More: more}, nil
}

// pull reads the thread to its end. Whatever fails, what was stored is whole, and the next call goes on from there.
func (a *Agent) pull(ctx context.Context, d *desk) error {
	if err := a.prove(ctx, d, 0); err != nil {
		return err
	}
	if err := a.loadReader(ctx, d); err != nil {
		return err
	}
	for range maxPages {
		page, err := d.inbox.Changes(ctx, d.held.Since, pageLimit)
		if err != nil {
			return err
		}
		if len(page.Closes) > 0 {
			if err := a.countersign(ctx, d, page.Closes); err != nil {
				return err
			}
			continue
		}
		if err := a.takePage(d, page); err != nil {
			d.reader = nil // its ratchets may have moved: take the stored one next time
			return a.afterPage(ctx, d, err)
		}
		if !page.More {
			return nil
		}
	}
	return nil
}

// afterPage decides what a page that failed means: the leaf was taken away, or the server was caught.
func (a *Agent) afterPage(ctx context.Context, d *desk, err error) error {
	if errors.Is(err, errRemoved) {
		return a.over(ctx, d, "removed from the thread")
	}
	if !chat.Is(err, chat.Tampered) {
		return err
	}
	var x *exhibit
	if errors.As(err, &x) {
		return a.stop(d, err, x.piece)
	}
	return a.stop(d, err)
}

// exhibit is a failure with what shows it.
type exhibit struct {
	error
	piece []byte
}

func (x *exhibit) Unwrap() error { return x.error }

// stop ends reading for good, since the server was caught; evidence was or is now kept.
func (a *Agent) stop(d *desk, why error, pieces ...[]byte) error {
	var e *chat.Error
	detail := "the server was caught"
	if errors.As(why, &e) {
		detail = e.Detail
	}
	if err := a.keepEvidence(d.held.Grant, detail, pieces...); err != nil {
		return err
	}
	h := d.held
	h.Phase, h.Detail = Stopped, detail
	if err := a.put(h); err != nil {
		return err
	}
	d.held, d.reader = h, nil
	a.log.Error("reading was stopped, evidence is kept", slog.String("grant", h.Grant.String()), slog.String("why", detail))
	return why
}

// loadReader takes up the stored group and lines, or joins the thread.
func (a *Agent) loadReader(ctx context.Context, d *desk) error {
	if d.reader != nil {
		return nil
	}
	trust, err := a.trust()
	if err != nil {
		return err
	}
	var snapshot []byte
	err = a.vault.View(func(tx *vault.Tx) (err error) {
		snapshot, _, err = tx.Get(bucketGroups, d.held.Grant.String())
		return err
	})
	if err != nil {
		return err
	}
	if snapshot == nil {
		return a.enter(ctx, d)
	}
	defer clear(snapshot)
	g, err := mls.UnmarshalGroup(snapshot, ed25519.PrivateKey(d.key))
	if err != nil {
		return err
	}
	r, err := newReader(trust, d.held, g)
	if err != nil {
		return err
	}
	err = a.vault.View(func(tx *vault.Tx) error { return replay(tx, r, d.held.Grant) })
	if err == nil {
		d.reader = r
	}
	return err
}

// replay folds the stored lines again.
func replay(tx *vault.Tx, r *reader, g chat.GrantID) error {
	return scan(tx, bucketLines, g, "", func(name string) error {
		l, ok, err := load[line](tx, bucketLines, name)
		if err != nil || !ok {
			return err
		}
		n, err := strconv.ParseUint(name[len(name)-16:], 16, 64)
		if err != nil {
			return chat.Errorf(chat.Internal, "agent: a line's name is malformed")
		}
		r.fold(n, l)
		return nil
	})
}

// enter joins the thread by the Welcome that waits, and stores the group in place of the KeyPackage.
func (a *Agent) enter(ctx context.Context, d *desk) error {
	if len(d.held.KeyPackage) == 0 {
		return chat.Errorf(chat.Internal, "agent: a reading grant lacks both group and KeyPackage")
	}
	w, err := d.inbox.Welcome(ctx)
	if err != nil {
		return err
	}
	trust, err := a.trust()
	if err != nil {
		return err
	}
	r, err := join(trust, d.held, d.key, w.Welcome)
	if chat.Is(err, chat.Tampered) {
		return a.stop(d, err, w.Welcome)
	}
	if err != nil {
		return err
	}
	h := d.held
	h.KeyPackage, h.Since, h.Last = nil, "", w.Seq
	err = a.vault.Update(func(tx *vault.Tx) error { return saveReader(tx, h, r) })
	if err != nil {
		return err
	}
	clear(d.held.KeyPackage)
	d.held, d.reader = h, r
	return nil
}

// saveReader stores grant and group together.
func saveReader(tx *vault.Tx, h held, r *reader) error {
	snapshot, err := r.group.MarshalBinary()
	if err != nil {
		return err
	}
	defer clear(snapshot)
	if err := tx.Put(bucketGroups, h.Grant.String(), snapshot); err != nil {
		return err
	}
	return save(tx, bucketGrants, h.Grant.String(), h)
}

// takePage processes a page and stores all that came of it in one transaction: group, lines, count, promises, state.
func (a *Agent) takePage(d *desk, page api.InboxChanges) error {
	h := d.held
	promises, err := a.openPromises(h, page)
	if err != nil {
		return err
	}
	err = a.vault.Update(func(tx *vault.Tx) error {
		for _, p := range promises {
			if err := save(tx, bucketPromises, under(h.Grant, leafName(p.leaf)), p.pending); err != nil {
				return err
			}
		}
		if len(page.Entries) > 0 {
			if err := a.takeEntries(tx, d.reader, &h, page); err != nil {
				return err
			}
		}
		h.Since, h.Actions = page.State, d.reader.actions(h)
		return saveReader(tx, h, d.reader)
	})
	if err == nil {
		d.held = h
	}
	return err
}

// takeEntries reads a page's entries. Before the first, an open record of the running period must have been promised for each of them.
func (a *Agent) takeEntries(tx *vault.Tx, r *reader, h *held, page api.InboxChanges) error {
	opens, err := a.running(tx, h.Grant, page.Entries[0].Seq)
	if err != nil {
		return err
	}
	for _, e := range page.Entries {
		if e.Seq <= h.Last {
			continue // served before: the answer was lost
		}
		if e.Seq != h.Last+1 || e.Conversation != h.Conversation {
			return chat.Errorf(chat.Tampered, "the server left out an entry of the thread, or served another thread's")
		}
		lines, err := r.take(e)
		if err != nil {
			return &exhibit{err, e.Body}
		}
		h.Last = e.Seq
		for _, l := range lines {
			if err := addLine(tx, r, h, l); err != nil {
				return err
			}
		}
	}
	if n := people(r.group.Roster()); !page.More && opens.records < n {
		return chat.Errorf(chat.Tampered, "the server recorded this access for %d of the thread's %d people", opens.records, n)
	}
	return count(tx, h.Grant, opens.period, page.Entries)
}

// addLine folds a line and stores it; what it takes back is forgotten.
func addLine(tx *vault.Tx, r *reader, h *held, l line) error {
	n := h.Lines + 1
	forget, keep := r.fold(n, l)
	if !keep {
		return nil
	}
	h.Lines = n
	for i, old := range forget {
		name := under(h.Grant, number(old))
		if i > 0 {
			if err := tx.Delete(bucketLines, name); err != nil {
				return err
			}
			continue
		}
		first, _, err := load[line](tx, bucketLines, name)
		if err != nil {
			return err
		}
		first.Content = nil
		if err := save(tx, bucketLines, name, first); err != nil {
			return err
		}
	}
	return save(tx, bucketLines, under(h.Grant, number(n)), l)
}

// actions are what the thread's present epoch still allows of the grant.
func (r *reader) actions(h held) chat.Actions {
	e, ok := r.thread.Find(h.Grant)
	if !ok {
		return h.Actions
	}
	return h.Actions & e.Actions
}

// opens is the running access period as the stored promises tell it.
type opens struct {
	period  int64
	records int
}

// running finds the access period that the newest promised open records are of. It must be the present one by our clock, and begin no
// later than the entry given: nothing is read of which the people's records do not tell.
func (a *Agent) running(tx *vault.Tx, g chat.GrantID, first uint64) (opens, error) {
	var found opens
	now := a.millis()
	err := scan(tx, bucketPromises, g, "", func(name string) error {
		p, _, err := load[pending](tx, bucketPromises, name)
		if err != nil {
			return err
		}
		if p.Period > found.period {
			found = opens{period: p.Period}
		}
		if p.Period == found.period && p.From <= first {
			found.records++
		}
		return nil
	})
	switch {
	case err != nil:
		return found, err
	case found.records == 0, found.period < proof.Period(now-periodSkew), found.period > proof.Period(now+periodSkew):
		return found, chat.Errorf(chat.Unproven, "the server served entries without promising a record of it first")
	}
	return found, nil
}

// count adds served entries to the period's count, by which its statement will be judged. What is served in a period is one range.
func count(tx *vault.Tx, g chat.GrantID, period int64, entries []api.Entry) error {
	name := under(g, number(uint64(period)))
	c, _, err := load[access](tx, bucketAccess, name)
	if err != nil {
		return err
	}
	first, last := entries[0], entries[len(entries)-1]
	c.Version, c.Period = stateVersion, period
	if c.Count == 0 || first.Seq < c.From {
		c.From = first.Seq
	}
	if last.Seq > c.To {
		c.To, c.Epoch = last.Seq, last.Epoch
	}
	c.Count = c.To - c.From + 1
	return save(tx, bucketAccess, name, c)
}
