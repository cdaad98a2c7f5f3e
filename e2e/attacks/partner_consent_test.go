package attacks

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/mls"
)

// consentLiar shows another request than the partner made, and is quick to say what the ledger does not hold.
type consentLiar struct {
	world.Calls
	change func(*api.ConsentRequest)
	put    func(api.Record) api.Record
}

func (l consentLiar) GetConsent(ctx context.Context, id string) (api.ConsentRequest, error) {
	r, err := l.Calls.GetConsent(ctx, id)
	if err == nil && l.change != nil {
		l.change(&r)
	}
	return r, err
}

func (l consentLiar) PutGrant(ctx context.Context, r api.PutGrant) (api.Record, error) {
	rec, err := l.Calls.PutGrant(ctx, r)
	if err == nil && l.put != nil {
		rec = l.put(rec)
	}
	return rec, err
}

func (l consentLiar) InclusionProof(ctx context.Context, leaf [32]byte, wait int) ([]byte, error) {
	return l.Calls.InclusionProof(ctx, leaf, min(wait, 1))
}

// certsOf certifies a key for a grant as a partner does that has these two keys.
func certsOf(t *testing.T, root, agentKey keychain.DeviceKey, id chat.GrantID, key keychain.DeviceKey) []byte {
	t.Helper()
	from, to := time.Now().Add(-time.Minute).UnixMilli(), time.Now().Add(time.Hour).UnixMilli()
	a, err := grant.Certify(root.Private(), grant.Cert{Partner: "flimmer", Purpose: grant.AgentPurpose, Key: publicOf(agentKey), NotBefore: from, NotAfter: to})
	if err != nil {
		t.Fatal(err)
	}
	g, err := grant.Certify(agentKey.Private(), grant.Cert{Partner: "flimmer", Purpose: grant.GrantPurpose, Grant: id, Key: publicOf(key), NotBefore: from, NotAfter: to})
	if err != nil {
		t.Fatal(err)
	}
	return canon.MustMarshal(grant.Certs{Agent: a, Grant: g})
}

func publicOf(k keychain.DeviceKey) [32]byte { return [32]byte(k.Public()) }

// agreementOf is an agreement for Flimmer with another root key that the operator signed. It stands in no ledger.
func agreementOf(t *testing.T, w *world.World, partner string, root keychain.DeviceKey) []byte {
	t.Helper()
	now := time.Now().UnixMilli()
	a := grant.Agreement{Number: 2, Host: strings.TrimPrefix(w.URL, "http://"), Partner: partner, Name: "Flimmer", Actions: chat.AllActions, PostsPerMinute: 1,
		NotBefore: now - 1000, NotAfter: now + 3600_000}
	offer, err := a.Offer(root.Private())
	w.Must(err)
	signed, err := grant.Countersign(offer, serverKeys(t, w).Server)
	w.Must(err)
	return signed
}

// TestServerSubstitutesTheRequest: Flimmer asks Alice; the server shows her client its own key, its own agreement, or another KeyPackage in
// Flimmer's place, so that it could write or read as Flimmer. Nothing of it is signed, or nothing of it gets into the thread.
func TestServerSubstitutesTheRequest(t *testing.T) {
	root, agentKey, key := newKey(t), newKey(t), newKey(t)
	for name, c := range map[string]struct {
		lie  func(t *testing.T, a *app, r *api.ConsentRequest)
		kind chat.Kind
		part string
	}{
		"its own certificates": {func(t *testing.T, a *app, r *api.ConsentRequest) { r.Certs = certsOf(t, root, agentKey, r.Grant, key) },
			chat.Tampered, "the key in this request is not Flimmer's"},
		"another grant's certificates": {func(t *testing.T, a *app, r *api.ConsentRequest) { r.Grant = chat.NewGrantID() },
			chat.Tampered, "the key in this request is not Flimmer's"},
		"its own agreement": {func(t *testing.T, a *app, r *api.ConsentRequest) {
			r.Certs, r.Partner.Agreement = certsOf(t, root, agentKey, r.Grant, key), agreementOf(t, a.w, "flimmer", root)
		}, chat.NotFound, "ledger"},
		"an altered agreement": {func(t *testing.T, a *app, r *api.ConsentRequest) {
			r.Partner.Agreement = append([]byte(nil), r.Partner.Agreement...)
			r.Partner.Agreement[40] ^= 1
		}, chat.Tampered, "the agreement with flimmer does not hold"},
		"another partner's agreement": {func(t *testing.T, a *app, r *api.ConsentRequest) {
			r.Partner.Agreement = agreementOf(t, a.w, "flammer", root)
		},
			chat.Tampered, "the server shows another partner's agreement"},
		"more than is agreed": {func(t *testing.T, a *app, r *api.ConsentRequest) { r.Actions = chat.AllActions.Names() },
			chat.Forbidden, "Flimmer asks for more than its agreement allows"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &app{t: t, w: world.New(t)}
			a.alice = a.w.SignUp("alice")
			a.flimmer = a.w.Flimmer(func(o *agent.Options) { o.Actions = chat.Send | chat.Read })
			q := a.flimmer.Asks(agent.Ask{Actions: chat.Send | chat.Read, Pick: true})
			lies(a.alice, func(s world.Calls) device.Server {
				return consentLiar{Calls: s, change: func(r *api.ConsentRequest) { c.lie(t, a, r) }}
			})
			_, err := a.alice.OpenConsent(a.w.Ctx(), q.URL)
			answered(t, err, c.kind, c.part)
		})
	}
}

// TestServerSubstitutesTheReader: the KeyPackage is the server's own, under Flimmer's name, or of Flimmer's under another key. Alice's client has
// signed a grant by then; it lets nobody into the thread.
func TestServerSubstitutesTheReader(t *testing.T) {
	for name, lie := range map[string]func(t *testing.T, a *app, r *api.ConsentRequest){
		"its own key": func(t *testing.T, a *app, r *api.ConsentRequest) {
			r.KeyPackage = keyPackageOf(t, chat.AgentURI(a.alice.Self().Host, "flimmer", r.Grant), newKey(t)).Public
		},
		"a person's": func(t *testing.T, a *app, r *api.ConsentRequest) {
			r.KeyPackage = keyPackageOf(t, chat.DeviceURI(a.alice.Self().Host, "mallory", chat.NewDeviceID()), newKey(t)).Public
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := people(t)
			q := a.flimmer.Asks(agent.Ask{Actions: chat.Send | chat.Read, Pick: true})
			lies(a.alice, func(s world.Calls) device.Server {
				return consentLiar{Calls: s, change: func(r *api.ConsentRequest) { lie(t, a, r) }}
			})
			consent, err := a.alice.OpenConsent(a.w.Ctx(), q.URL)
			a.w.Must(err)
			_, err = a.alice.Allow(a.w.Ctx(), consent, device.Answer{Friend: "bob"})
			answered(t, err, chat.Tampered, "the KeyPackage in the request is not Flimmer's")
			kept(t, a.alice, "the KeyPackage in the request is not Flimmer's")
			if live, err := a.alice.LiveGrants(); err != nil || len(live) != 0 {
				t.Fatalf("in the thread: %v, %v", live, err)
			}
		})
	}
}

// TestServerRecordsAnotherGrant: what comes back as the record of Alice's grant is another record.
func TestServerRecordsAnotherGrant(t *testing.T) {
	a := flimmer(t, chat.Send)
	records, err := steal(t, a.alice).calls.Records(a.w.Ctx(), api.RecordQuery{Partner: "flimmer", Chain: "control", Limit: 10})
	a.w.Must(err)
	lies(a.alice, func(s world.Calls) device.Server {
		return consentLiar{Calls: s, put: func(api.Record) api.Record { return records.Records[0] }}
	})
	q := a.flimmer.Asks(agent.Ask{Actions: chat.AllActions, Previous: a.grant})
	consent, err := a.alice.OpenConsent(a.w.Ctx(), q.URL)
	a.w.Must(err)
	_, err = a.alice.Allow(a.w.Ctx(), consent, device.Answer{})
	answered(t, err, chat.Tampered, "the server recorded another grant than the one that was signed")
	kept(t, a.alice, "the server recorded another grant than the one that was signed")
}

// TestOldRequestAgain: after the revocation the server shows the request of then, so that Alice would sign a grant of that id and key once more.
func TestOldRequestAgain(t *testing.T) {
	a := people(t)
	q := a.flimmer.Asks(agent.Ask{Actions: chat.Send, Pick: true})
	var old api.ConsentRequest
	lies(a.alice, func(s world.Calls) device.Server {
		return consentLiar{Calls: s, change: func(r *api.ConsentRequest) { old = *r }}
	})
	a.flimmer.Consent(a.alice, q, device.Answer{Friend: "bob"})
	a.w.Must(a.alice.Revoke(a.w.Ctx(), q.ID))
	again := a.flimmer.Asks(agent.Ask{Actions: chat.Send, Pick: true})
	lies(a.alice, func(s world.Calls) device.Server {
		return consentLiar{Calls: s, change: func(r *api.ConsentRequest) { *r = old }}
	})
	consent, err := a.alice.OpenConsent(a.w.Ctx(), again.URL)
	a.w.Must(err)
	_, err = a.alice.Allow(a.w.Ctx(), consent, device.Answer{Friend: "bob"})
	answered(t, err, chat.Tampered, "the request names a grant that you signed before: a grant is never used again")
}

// TestWidening: more than was asked for, more than was agreed, more than was allowed, at every step.
func TestWidening(t *testing.T) {
	a := &app{t: t, w: world.New(t)}
	a.alice, a.bob = a.w.SignUp("alice"), a.w.SignUp("bob")
	a.flimmer = a.w.Flimmer(func(o *agent.Options) { o.Actions = chat.Send | chat.Read })
	a.w.Befriend(a.alice, a.bob)
	ctx := a.w.Ctx()

	// The request: more than the agreement, or longer.
	_, err := a.flimmer.Authorize(ctx, agent.Ask{Actions: chat.AllActions, Pick: true, Until: time.Now().Add(time.Hour)})
	answered(t, err, chat.Invalid, "the agreement with Flimmer allows send,read only")
	_, err = a.flimmer.Authorize(ctx, agent.Ask{Actions: chat.Send, Pick: true, Until: time.Now().Add(20 * 365 * 24 * time.Hour)})
	answered(t, err, chat.Invalid, "")

	// The consent: more than was asked for.
	q := a.flimmer.Asks(agent.Ask{Actions: chat.Send, Pick: true})
	consent, err := a.alice.OpenConsent(ctx, q.URL)
	a.w.Must(err)
	_, err = a.alice.Allow(ctx, consent, device.Answer{Friend: "bob", Actions: chat.Send | chat.Read})
	answered(t, err, chat.Forbidden, "Flimmer did not ask for")

	// The grant: a modified client signs more, or for longer.
	a.thread = meet(a.w, a.alice, a.bob, "flimmer")
	mallory := steal(t, a.alice)
	for name, c := range map[string]struct {
		change func(*grant.Grant)
		part   string
	}{
		"more actions":     {func(g *grant.Grant) { g.Actions |= chat.Read }, "the grant allows more than was asked for: send"},
		"longer":           {func(g *grant.Grant) { g.Expiry += 1000 }, "the grant lasts longer than was asked for"},
		"another key":      {func(g *grant.Grant) { g.AgentKey = publicOf(newKey(t)) }, "the grant names a key that the partner did not certify"},
		"another's thread": {func(g *grant.Grant) { g.Conversation = meet(a.w, a.alice, a.bob, "") }, "the conversation was not made for this partner"},
		"another id":       {func(g *grant.Grant) { g.ID = chat.NewGrantID() }, "the grant is not the one that was asked for"},
		"another's name":   {func(g *grant.Grant) { g.Account, g.Handle = a.bob.Self().Account, "bob" }, "a grant is made by the device that hands it in"},
	} {
		g := a.draft(mallory, consent)
		c.change(g)
		signed, err := g.Sign(mallory.key)
		a.w.Must(err)
		if _, err := mallory.calls.PutGrant(ctx, api.PutGrant{Request: consent.Request.ID, Signed: signed}); err == nil || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: answered with %v, want %q", name, err, c.part)
		}
	}

	// The tokens: more than was granted.
	a.grant = a.flimmer.Gets(a.alice, "bob", chat.Send)
	l := a.flimmer.Loots(a.grant)
	_, err = l.Token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {l.Refresh}, "resource": {a.w.URL + "/inbox"},
		"authorization_details": {`[{"type":"inbox_conversation","grant_id":"` + a.grant.String() + `","actions":["send","read","delete"]}]`}}, l.Key)
	answered(t, err, chat.Forbidden, "invalid_authorization_details")

	// The thread: the entry says more than the grant.
	a.w.Must(a.bob.Sync(ctx))
	mallory = steal(t, a.alice)
	g := mallory.group(a.thread)
	thread := threadOf(t, g)
	e := thread.Grants[0]
	e.Actions |= chat.Delete
	x := withThread(g, thread.With(e))
	p, err := g.Commit(mls.CommitOptions{Extensions: &x})
	a.w.Must(err)
	_, err = mallory.calls.Commit(ctx, a.thread, api.Commit{Commit: p.Commit, Slot: announcement(t, a.thread, p.Next().Epoch(), slotKey(t), mallory.key), DedupKey: newDedupKey()})
	answered(t, err, chat.Forbidden, "a grant in the thread may be narrowed, not changed or widened")
	injects(a.bob, next(t, a.bob, a.thread, 1, api.KindCommit, p.Commit))
	if err := a.bob.Sync(ctx); err == nil {
		t.Fatal("Bob took the commit")
	}
	stopped(t, a.w, a.bob, a.thread, "a grant in the thread may be narrowed, not changed or widened")
}

// draft is the grant that an honest client would sign for a request.
func (a *app) draft(who *stolen, q *device.Consent) *grant.Grant {
	a.t.Helper()
	key, err := grant.CheckCerts(q.Request.Certs, q.Agreement.RootKey[:], "flimmer", q.Request.Grant, time.Now().UnixMilli())
	a.w.Must(err)
	var signers [][32]byte
	for _, m := range who.group(a.thread).Roster().Members() {
		if id, err := chat.ParseIdentity(m.Identity); err == nil && !id.IsAgent() {
			signers = append(signers, [32]byte(m.SignatureKey))
		}
	}
	self := a.alice.Self()
	return &grant.Grant{ID: q.Request.Grant, Account: self.Account, Handle: self.Handle, Partner: "flimmer", Agreement: grant.AgreementHash(q.Request.Partner.Agreement),
		Actions: q.Actions, Conversation: a.thread, AgentKey: [32]byte(key), ChainVersion: chainOf(a.t, a.w, a.alice).Version(), SlotSigners: signers,
		Issued: time.Now().UnixMilli(), Expiry: q.Request.ValidUntil, Device: self.Device}
}

// TestCodeReplayedInParallel: one code, redeemed twenty times at once by who holds the right key. At most one redemption gets tokens, and since
// the code came again they are worth nothing; Alice's permission stands.
func TestCodeReplayedInParallel(t *testing.T) {
	a := people(t)
	q := a.flimmer.Asks(agent.Ask{Actions: chat.Send, Pick: true})
	back := a.flimmer.Consent(a.alice, q, device.Answer{Friend: "bob"})
	l := a.flimmer.Loots(q.ID)
	var mu sync.Mutex
	var got []world.Tokens
	var refused []error
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			t, err := l.Token(url.Values{"grant_type": {"authorization_code"}, "code": {back.Get("code")}, "code_verifier": {l.Verifier},
				"redirect_uri": {l.Redirect}, "resource": {a.w.URL + "/inbox"}}, l.Key)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				got = append(got, t)
			} else {
				refused = append(refused, err)
			}
		})
	}
	all.Wait()
	if len(got) > 1 {
		t.Fatalf("%d redemptions of one code got tokens", len(got))
	}
	for _, err := range refused {
		answered(t, err, chat.Forbidden, "invalid_grant")
	}
	for _, tokens := range got {
		_, err := a.w.Inbox(tokens.Access, l.Key).Grant(a.w.Ctx())
		answered(t, err, chat.Unauthenticated, "this access token is unknown or over")
	}
	if live, err := a.alice.LiveGrants(); err != nil || len(live) != 1 {
		t.Fatalf("the permission does not stand: %v %v", live, err)
	}
}

// TestCodeInOtherHands: somebody else has the code; without the request's verifier or under another key it is worth nothing.
func TestCodeInOtherHands(t *testing.T) {
	a := people(t)
	other := a.w.Flimmer(func(o *agent.Options) { o.Partner, o.Name = "other", "Other" })
	mallory := other.Loots(other.Asks(agent.Ask{Actions: chat.Send, Pick: true}).ID)
	for name, try := range map[string]func(l *world.Loot, form url.Values) error{
		"another partner": func(l *world.Loot, form url.Values) error { _, err := mallory.Token(form, mallory.Key); return err },
		"without verifier": func(l *world.Loot, form url.Values) error {
			form.Set("code_verifier", mallory.Verifier)
			_, err := l.Token(form, l.Key)
			return err
		},
		"another key": func(l *world.Loot, form url.Values) error { _, err := l.Token(form, mallory.Key); return err },
		"another redirect": func(l *world.Loot, form url.Values) error {
			form.Set("redirect_uri", "http://127.0.0.1:1/evil")
			_, err := l.Token(form, l.Key)
			return err
		},
		"for another service": func(l *world.Loot, form url.Values) error {
			form.Set("resource", a.w.URL+"/v1")
			_, err := l.Token(form, l.Key)
			return err
		},
	} {
		q := a.flimmer.Asks(agent.Ask{Actions: chat.Send, Pick: true})
		back := a.flimmer.Consent(a.alice, q, device.Answer{Friend: "bob"})
		l := a.flimmer.Loots(q.ID)
		err := try(l, url.Values{"grant_type": {"authorization_code"}, "code": {back.Get("code")}, "code_verifier": {l.Verifier},
			"redirect_uri": {l.Redirect}, "resource": {a.w.URL + "/inbox"}})
		if err == nil || !strings.Contains(err.Error(), "invalid_") {
			t.Errorf("%s: answered with %v", name, err)
		}
	}
}

// TestRefreshTokenReplayed: a refresh token that was used comes again, from a thief or from the owner: all tokens of the grant end.
func TestRefreshTokenReplayed(t *testing.T) {
	a := flimmer(t, chat.Send)
	l := a.flimmer.Loots(a.grant)
	fresh, err := l.Refreshed()
	a.w.Must(err)
	if _, err := l.Refreshed(); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
		t.Fatalf("the old refresh token was answered with %v", err)
	}
	_, err = a.w.Inbox(fresh.Access, l.Key).Grant(a.w.Ctx())
	answered(t, err, chat.Unauthenticated, "this access token is unknown or over")
}
