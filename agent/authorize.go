package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"net/url"
	"strings"
	"time"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls"
	"letterlock/vault"
)

const (
	// decideFor is how long certificate and KeyPackage of a request are good: the person decides well before.
	decideFor = 24 * time.Hour
	maxFor    = 256
	// slack is how long the answer to a request is waited for beyond its end, in milliseconds.
	slack = 3600_000
)

// Ask is what to ask a person for: one of Pick, Thread and Previous.
type Ask struct {
	Actions  chat.Actions
	Pick     bool                // the person chooses a friend; a thread is made
	Thread   chat.ConversationID // this thread
	Previous chat.GrantID        // the thread of that grant, which the new one replaces
	Until    time.Time           // when the grant shall end
	For      string              // the partner's own name of the person; never sent
}

// Authorization is an answer to Authorize, and how it stands. Its id is that of the grant it asks for.
type Authorization struct {
	ID      chat.GrantID `json:"id"`
	URL     string       `json:"url,omitempty"` // where the person decides
	Expires int64        `json:"expires_at"`    // ms
	Outcome Outcome      `json:"state"`
	Detail  string       `json:"detail,omitempty"`
}

// Authorize makes fresh keys for a grant and asks for it: it returns the address where the person decides. Redeem takes the answer.
func (a *Agent) Authorize(ctx context.Context, ask Ask) (Authorization, error) {
	thread, err := a.check(ask)
	if err != nil {
		return Authorization{}, err
	}
	h := held{Version: stateVersion, Grant: chat.NewGrantID(), Phase: Asked, For: ask.For, AskedFor: ask.Actions, Conversation: thread}
	key, wanted, err := a.equip(&h, ask)
	if err != nil {
		return Authorization{}, err
	}
	random, err := a.oauth.random()
	if err != nil {
		return Authorization{}, err
	}
	verifier, err := a.oauth.random()
	if err != nil {
		return Authorization{}, err
	}
	q := asked{Version: stateVersion, Grant: h.Grant, Outcome: Waiting, Redirect: a.redirect, State: h.Grant.String() + "." + random, Verifier: verifier}
	address, expires, err := a.oauth.push(ctx, wanted, q, key)
	if err != nil {
		return Authorization{}, err
	}
	q.Expires = expires
	err = a.vault.Update(func(tx *vault.Tx) error {
		if err := save(tx, bucketAsked, h.Grant.String(), q); err != nil {
			return err
		}
		return save(tx, bucketGrants, h.Grant.String(), h)
	})
	return Authorization{ID: h.Grant, URL: address, Expires: expires, Outcome: Waiting}, err
}

// check refuses what the server would refuse anyway, and finds the thread that is meant.
func (a *Agent) check(ask Ask) (thread chat.ConversationID, err error) {
	ways := 0
	for _, named := range []bool{ask.Pick, !ask.Thread.IsZero(), !ask.Previous.IsZero()} {
		if named {
			ways++
		}
	}
	switch {
	case ways != 1:
		return thread, chat.Errorf(chat.Invalid, "name one of pick, thread and previous")
	case ask.Actions == 0 || ask.Actions&^chat.AllActions != 0:
		return thread, chat.Errorf(chat.Invalid, "the actions are send, read and delete")
	case !ask.Until.After(a.now()):
		return thread, chat.Errorf(chat.Invalid, "the grant would end before it begins")
	case len(ask.For) > maxFor || plainText(ask.For, maxFor) != ask.For:
		return thread, chat.Errorf(chat.Invalid, "for: at most %d bytes of plain text", maxFor)
	}
	if ask.Previous.IsZero() {
		return ask.Thread, nil
	}
	d, err := a.at(ask.Previous)
	if err != nil {
		return thread, err
	}
	defer d.mu.Unlock()
	return d.held.Conversation, nil
}

// equip makes the key of the grant, its certificates, and for reading a KeyPackage.
func (a *Agent) equip(h *held, ask Ask) (key grantKey, wanted details, err error) {
	if key, err = newKey[grantKey](a.rand); err != nil {
		return nil, wanted, err
	}
	now := a.now()
	cert, err := grant.Certify(ed25519.PrivateKey(a.agent), grant.Cert{Partner: a.config.Partner, Purpose: grant.GrantPurpose, Grant: h.Grant,
		Key: [32]byte(public(key)), NotBefore: now.Add(-clockSlack).UnixMilli(), NotAfter: now.Add(decideFor).UnixMilli()})
	if err != nil {
		return nil, wanted, err
	}
	h.Seed = seed(key)
	h.Certs = canon.MustMarshal(grant.Certs{Agent: a.config.AgentCert, Grant: cert})
	wanted = details{Type: detailsType, Actions: ask.Actions.Names(), Pick: ask.Pick, Grant: h.Grant, Certs: h.Certs, ValidUntil: ask.Until.UnixMilli()}
	if !h.Conversation.IsZero() {
		wanted.Identifier = h.Conversation.String()
	}
	if !ask.Actions.Has(chat.Read) {
		return key, wanted, nil
	}
	kp, err := mls.NewKeyPackage(mls.KeyPackageOptions{
		Identity: []byte(chat.AgentURI(a.config.Server.Host, a.config.Partner, h.Grant)), Signer: ed25519.PrivateKey(key),
		SupportedExtensions: []uint16{grant.ExtensionType}, NotBefore: now.Add(-clockSlack), NotAfter: now.Add(decideFor), Rand: a.rand})
	if err != nil {
		return nil, wanted, err
	}
	wanted.KeyPackage = kp.Public
	h.KeyPackage, err = kp.MarshalBinary()
	return key, wanted, err
}

// Redeem takes the answer that the person brings back to the redirect URI: its query. It can be called again after a failure that was
// not the person's or the server's last word.
func (a *Agent) Redeem(ctx context.Context, query url.Values) (Authorization, error) {
	id, q, err := a.recognise(query.Get("state"))
	if err != nil {
		return Authorization{}, err
	}
	if iss := query.Get("iss"); iss != a.config.Server.URL {
		return Authorization{}, chat.Errorf(chat.Forbidden, "the answer is of another authorization server") // RFC 9207 section 2.4
	}
	d, err := a.lock(id)
	if err != nil {
		return Authorization{}, err
	}
	defer d.mu.Unlock()
	if d.held.Phase != Asked {
		return a.standing(id)
	}
	if code := query.Get("error"); code != "" {
		return a.decline(d, q, code)
	}
	if d.refreshToken() == "" {
		if err := a.redeemCode(ctx, d, q, query.Get("code")); err != nil {
			return Authorization{}, err
		}
	}
	if err := a.accept(ctx, d); err != nil {
		return Authorization{}, err
	}
	return a.standing(id)
}

// recognise finds the request that a state belongs to. Nobody but the browser that was sent out holds the state.
func (a *Agent) recognise(state string) (id chat.GrantID, q asked, err error) {
	unknown := chat.Errorf(chat.Forbidden, "this answer belongs to no request of this agent, or was used")
	name, _, _ := strings.Cut(state, ".")
	if id, err = chat.ParseGrantID(name); err != nil {
		return id, q, unknown
	}
	q, err = a.request(id)
	if err != nil || q.State == "" || !chat.EqualBytes([]byte(q.State), []byte(state)) {
		return id, q, unknown
	}
	return id, q, nil
}

func (a *Agent) request(id chat.GrantID) (q asked, err error) {
	err = a.vault.View(func(tx *vault.Tx) error {
		var ok bool
		if q, ok, err = load[asked](tx, bucketAsked, id.String()); err == nil && !ok {
			err = chat.Errorf(chat.NotFound, "this agent made no such request")
		}
		return err
	})
	return q, err
}

// Authorization tells how a request stands. One whose tokens are there already is finished on the way.
func (a *Agent) Authorization(ctx context.Context, id chat.GrantID) (Authorization, error) {
	q, err := a.request(id)
	if err != nil || q.Outcome != Waiting {
		return q.view(), err
	}
	d, err := a.lock(id)
	if err != nil {
		return Authorization{}, err
	}
	defer d.mu.Unlock()
	if d.held.Phase == Asked && d.refreshToken() != "" {
		err = a.accept(ctx, d)
	} else if d.held.Phase == Asked && a.millis() > q.Expires+slack {
		err = a.close(d, Failed, "nobody answered in time")
	}
	if err != nil {
		return Authorization{}, err
	}
	return a.standing(id)
}

func (a *Agent) standing(id chat.GrantID) (Authorization, error) {
	q, err := a.request(id)
	return q.view(), err
}

func (q asked) view() Authorization {
	return Authorization{ID: q.Grant, Expires: q.Expires, Outcome: q.Outcome, Detail: q.Detail}
}

// decline takes a refusal.
func (a *Agent) decline(d *desk, q asked, code string) (Authorization, error) {
	outcome, why := Failed, "the authorization server answered "+plainText(code, 64)
	if code == "access_denied" {
		outcome, why = Refused, "the person refused"
	}
	if err := a.close(d, outcome, why); err != nil {
		return Authorization{}, err
	}
	return a.standing(q.Grant)
}

func (a *Agent) redeemCode(ctx context.Context, d *desk, q asked, code string) error {
	if code == "" {
		return chat.Errorf(chat.Invalid, "the answer holds no code")
	}
	t, err := a.oauth.exchange(ctx, code, q, d.key)
	if isInvalidGrant(err) {
		if err := a.close(d, Failed, "the code was not, or no longer, good: ask again"); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if t.Refresh == "" {
		return chat.Errorf(chat.Incompatible, "the authorization server gave no refresh token")
	}
	err = a.vault.Update(func(tx *vault.Tx) error { return save(tx, bucketTokens, d.held.Grant.String(), t) })
	if err != nil {
		return err
	}
	d.tokenMu.Lock()
	d.tokens = t
	d.tokenMu.Unlock()
	return nil
}

// accept fetches the grant, checks that it is what was asked for and names our key, and makes it live.
func (a *Agent) accept(ctx context.Context, d *desk) error {
	in, err := d.inbox.Grant(ctx)
	if d.tokensGone() {
		return a.close(d, Failed, "the grant ended before it began")
	}
	if err != nil {
		return err
	}
	g, err := a.checkGrant(d.held, in)
	if chat.Is(err, chat.Tampered) {
		if err := a.keepEvidence(d.held.Grant, "the server gave a grant that is not what was asked for", in.Signed); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	h := d.held
	h.Phase, h.Signed, h.Conversation, h.Handle, h.Actions, h.Expiry, h.Friend = Live, in.Signed, g.Conversation, g.Handle, g.Actions, g.Expiry, in.Friend
	if !h.Actions.Has(chat.Read) {
		h.KeyPackage = nil
	}
	err = a.vault.Update(func(tx *vault.Tx) error {
		q, _, err := load[asked](tx, bucketAsked, h.Grant.String())
		if err != nil {
			return err
		}
		q.Outcome, q.State, q.Verifier = Granted, "", ""
		if err := save(tx, bucketAsked, h.Grant.String(), q); err != nil {
			return err
		}
		return save(tx, bucketGrants, h.Grant.String(), h)
	})
	if err != nil {
		return err
	}
	d.held = h
	return nil
}

// checkGrant checks a grant against what was asked for. Its signature must be of one of the devices that it names as slot signers: from
// here on these and no others announce slots.
func (a *Agent) checkGrant(h held, in api.InboxGrant) (*grant.Grant, error) {
	g, err := openGrant(in.Signed)
	if err != nil {
		return nil, err
	}
	key, err := openKey[grantKey](h.Seed)
	if err != nil {
		return nil, err
	}
	switch {
	case g.ID != h.Grant || in.Grant != h.Grant:
		return nil, chat.Errorf(chat.Tampered, "the server gave another grant than the one asked for")
	case !bytes.Equal(g.AgentKey[:], public(key)) || g.Partner != a.config.Partner:
		return nil, chat.Errorf(chat.Tampered, "the grant names another agent's key")
	case g.Conversation != in.Conversation || !h.Conversation.IsZero() && g.Conversation != h.Conversation:
		return nil, chat.Errorf(chat.Tampered, "the grant is for another conversation")
	case !h.AskedFor.Has(g.Actions):
		return nil, chat.Errorf(chat.Tampered, "the grant allows more than was asked for")
	case in.State != string(grant.Live):
		return nil, chat.Errorf(chat.Unavailable, "the grant is not live: its state is %s", plainText(in.State, 32))
	}
	return g, nil
}

// openGrant reads a signed grant under one of the device keys that it names.
func openGrant(signed []byte) (*grant.Grant, error) {
	g, err := grant.Peek(signed)
	if err != nil {
		return nil, err
	}
	for _, signer := range g.SlotSigners {
		if g, err := grant.Open(signed, signer[:]); err == nil {
			return g, nil
		}
	}
	return nil, chat.Errorf(chat.Tampered, "the grant is signed by none of the devices that it names")
}

// close ends a request that came to nothing: its keys are forgotten.
func (a *Agent) close(d *desk, outcome Outcome, why string) error {
	id := d.held.Grant
	err := a.vault.Update(func(tx *vault.Tx) error {
		q, _, err := load[asked](tx, bucketAsked, id.String())
		if err != nil {
			return err
		}
		q.Outcome, q.Detail, q.State, q.Verifier = outcome, why, "", ""
		if err := save(tx, bucketAsked, id.String(), q); err != nil {
			return err
		}
		if err := tx.Delete(bucketTokens, id.String()); err != nil {
			return err
		}
		return tx.Delete(bucketGrants, id.String())
	})
	if err != nil {
		return err
	}
	clear(d.key)
	clear(d.held.Seed)
	d.held.Phase, d.held.Detail = Ended, why
	a.mu.Lock()
	delete(a.grants, id)
	a.mu.Unlock()
	return nil
}
