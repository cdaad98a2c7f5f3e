package agent

import (
	"context"

	"letterlock/chat"
	"letterlock/vault"
)

// refreshBefore is how long before its end an access token is renewed, in milliseconds.
const refreshBefore = 30_000

// tokenSource gives the access token of one grant: httpclient.TokenSource.
type tokenSource struct {
	agent *Agent
	desk  *desk
}

// Token returns a good token, renewing the one that ran out or was just refused.
func (s *tokenSource) Token(ctx context.Context, refused string) (string, error) {
	d := s.desk
	d.tokenMu.Lock()
	defer d.tokenMu.Unlock()
	t := d.tokens
	if t.Access != "" && t.Access != refused && s.agent.millis() < t.Expires-refreshBefore {
		return t.Access, nil
	}
	if t.Refresh == "" {
		d.gone = true
		return "", chat.Errorf(chat.Unauthenticated, "the tokens of this grant are gone")
	}
	next, err := s.agent.oauth.refresh(ctx, t.Refresh, d.key)
	if isInvalidGrant(err) {
		d.gone = true
	}
	if err != nil {
		return "", err
	}
	if next.Refresh == "" {
		next.Refresh = t.Refresh
	}
	err = s.agent.vault.Update(func(tx *vault.Tx) error { return save(tx, bucketTokens, d.held.Grant.String(), next) })
	if err != nil {
		return "", err
	}
	d.tokens = next
	return next.Access, nil
}

// tokensGone reports whether the server ended the grant's tokens. They never come back, and the grant's id can never be asked for
// again: for this agent the grant is over.
func (d *desk) tokensGone() bool {
	d.tokenMu.Lock()
	defer d.tokenMu.Unlock()
	return d.gone
}
