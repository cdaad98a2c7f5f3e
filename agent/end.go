package agent

import (
	"context"
	"log/slog"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/vault"
)

// buckets that hold values under a grant, by grant id and a rest.
var bucketsUnder = []string{bucketLetters, bucketLines, bucketAccess, bucketPromises}

// End gives a grant up from the partner's side: its tokens are revoked and everything held under it is erased. The person's list
// shows it until the person ends it too.
func (a *Agent) End(ctx context.Context, id chat.GrantID) error {
	d, err := a.lock(id)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	if d.held.Phase == Ended {
		return nil
	}
	a.lastReceipts(ctx, d)
	if t := d.refreshToken(); t != "" {
		if err := a.oauth.revoke(ctx, t, d.key); err != nil && !isInvalidGrant(err) {
			return err
		}
	}
	return a.erase(d, "given up by the partner")
}

func (d *desk) refreshToken() string {
	d.tokenMu.Lock()
	defer d.tokenMu.Unlock()
	return d.tokens.Refresh
}

// judge looks at the error of a call under a grant. If it says that the grant is over, what is held under it is erased, and the
// error says so.
func (a *Agent) judge(ctx context.Context, d *desk, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case d.held.Phase == Ended:
		return err
	case d.tokensGone():
		return a.over(ctx, d, "ended by the person or the server")
	case chat.Is(err, chat.Expired) && a.millis() >= d.held.Expiry:
		return a.over(ctx, d, "expired")
	}
	return err
}

// over gives the last receipts, erases what is held under a grant, and returns the error that says so.
func (a *Agent) over(ctx context.Context, d *desk, why string) error {
	a.lastReceipts(ctx, d)
	if err := a.erase(d, why); err != nil {
		return err
	}
	return errEnded(d.held)
}

// erase deletes everything held under a grant but the line that says what it was: keys, tokens, group, plaintexts. Evidence stays; it
// holds nothing that was said.
func (a *Agent) erase(d *desk, why string) error {
	h := d.held
	over := held{Version: stateVersion, Grant: h.Grant, Phase: Ended, Detail: why, For: h.For, Conversation: h.Conversation,
		Handle: h.Handle, Actions: h.Actions, Expiry: h.Expiry}
	err := a.vault.Update(func(tx *vault.Tx) error {
		for _, bucket := range bucketsUnder {
			err := scan(tx, bucket, h.Grant, "", func(name string) error { return tx.Delete(bucket, name) })
			if err != nil {
				return err
			}
		}
		for _, bucket := range []string{bucketTokens, bucketGroups} {
			if err := tx.Delete(bucket, h.Grant.String()); err != nil {
				return err
			}
		}
		return save(tx, bucketGrants, h.Grant.String(), over)
	})
	if err != nil {
		return err
	}
	clear(d.key)
	clear(h.Seed)
	clear(h.KeyPackage)
	d.tokenMu.Lock()
	d.tokens = tokens{}
	d.tokenMu.Unlock()
	d.held, d.key, d.inbox, d.reader = over, nil, nil, nil
	a.log.Info("a grant is over: everything held under it was erased", slog.String("grant", h.Grant.String()), slog.String("why", why))
	return nil
}

// narrow takes over fewer actions, as the server reports them. More than the signed grant allows are never taken.
func (a *Agent) narrow(d *desk, names []string) error {
	now, err := chat.ParseActions(names)
	if err != nil {
		return err
	}
	now &= d.held.Actions
	if now == d.held.Actions {
		return nil
	}
	if now == 0 {
		return a.erase(d, "ended by the person")
	}
	h := d.held
	h.Actions = now
	if err := a.put(h); err != nil {
		return err
	}
	d.held = h
	return nil
}

// may refuses what the grant does not allow before the server is asked.
func (d *desk) may(action chat.Actions, now int64) error {
	h := d.held
	return grant.May(grant.Standing{Handle: h.Handle, State: grant.Live, Actions: h.Actions, Expiry: h.Expiry,
		Entry: &grant.Entry{Actions: h.Actions}}, action, now)
}
