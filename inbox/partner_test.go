package inbox

import (
	"bytes"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/proof"
)

// TestPutPartnerRefuses spoils one thing of a good registration at a time.
func TestPutPartnerRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		kind  chat.Kind
		spoil func(w *world, a *app, r *api.AcceptAgreement)
	}{
		"no id":        {chat.Invalid, func(_ *world, _ *app, r *api.AcceptAgreement) { r.Registration.Partner = "" }},
		"another id":   {chat.Invalid, func(_ *world, _ *app, r *api.AcceptAgreement) { r.Registration.Partner = "other" }},
		"another name": {chat.Invalid, func(_ *world, _ *app, r *api.AcceptAgreement) { r.Registration.Name = "Flummer" }},
		"no redirect":  {chat.Invalid, func(_ *world, _ *app, r *api.AcceptAgreement) { r.Registration.RedirectURIs = nil }},
		"a redirect in the open": {chat.Invalid, func(_ *world, _ *app, r *api.AcceptAgreement) {
			r.Registration.RedirectURIs = []string{"http://flimmer.example/"}
		}},
		"no client keys":         {chat.Invalid, func(_ *world, _ *app, r *api.AcceptAgreement) { r.Registration.ClientJWKS = nil }},
		"client keys of garbage": {chat.Invalid, func(_ *world, _ *app, r *api.AcceptAgreement) { r.Registration.ClientJWKS = []byte("{") }},
		"an offer of garbage":    {chat.Invalid, func(_ *world, _ *app, r *api.AcceptAgreement) { r.Registration.Offer = []byte{1} }},
		"no offer at first":      {chat.NotFound, func(_ *world, _ *app, r *api.AcceptAgreement) { r.Registration.Offer = nil }},
		"an offer for another": {chat.Invalid, func(_ *world, a *app, r *api.AcceptAgreement) {
			r.Registration.Offer = a.offer(func(g *grant.Agreement) { g.Host = "chat.example" })
		}},
		"an offer that is over": {chat.Expired, func(w *world, _ *app, _ *api.AcceptAgreement) { w.clock.pass(366 * 24 * time.Hour) }},
		"an offer not yet in force": {chat.Expired, func(w *world, a *app, r *api.AcceptAgreement) {
			r.Registration.Offer = a.offer(func(g *grant.Agreement) { g.NotBefore = w.clock.now().UnixMilli() + 1000 })
		}},
		"no agent certificate": {chat.Invalid, func(_ *world, _ *app, r *api.AcceptAgreement) { r.Registration.AgentCert = nil }},
		"another root's agent": {chat.Invalid, func(w *world, _ *app, r *api.AcceptAgreement) {
			r.Registration.AgentCert = (&app{w: w, id: "flimmer", root: newKey(w), key: newKey(w)}).registration(nil).AgentCert
		}},
		"another partner's agent": {chat.Invalid, func(w *world, a *app, r *api.AcceptAgreement) {
			r.Registration.AgentCert = (&app{w: w, id: "other", root: a.root, key: a.key}).registration(nil).AgentCert
		}},
		"another key at its domain": {chat.Tampered, func(_ *world, _ *app, r *api.AcceptAgreement) { r.DomainKey = bytes.Repeat([]byte{1}, 32) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := &app{w: w, id: "flimmer", root: newKey(w), key: newKey(w)}
			r := api.AcceptAgreement{Registration: a.registration(a.offer(nil))}
			c.spoil(w, a, &r)
			_, err := w.inbox.PutPartner(w.ctx, r)
			w.refused(err, c.kind)
			if list, err := w.inbox.ListPartners(w.ctx); err != nil || len(list.Partners) != 0 {
				t.Errorf("registered all the same: %v, %v", list, err)
			}
			w.publish()
			if w.logged(func(l proof.Leaf) bool { _, ok := l.(*proof.Agreement); return ok }) {
				t.Error("the refused agreement is in the ledger")
			}
		})
	}
}

func TestAgreements(t *testing.T) {
	w := newWorld(t)
	a := &app{w: w, id: "flimmer", root: newKey(w), key: newKey(w)}
	first := api.AcceptAgreement{Registration: a.registration(a.offer(nil)), DomainKey: a.root.Public().(ed25519Public)}
	got, err := w.inbox.PutPartner(w.ctx, first)
	w.must(err)
	again, err := w.inbox.PutPartner(w.ctx, first)
	w.must(err)
	if !bytes.Equal(got.Agreement, again.Agreement) || !got.Active || got.Number != 1 {
		t.Errorf("the agreement: %+v", got)
	}
	w.publish()
	list, err := w.inbox.ListPartners(w.ctx)
	w.must(err)
	w.must(w.inbox.trust.AgreementLogged(list.Partners[0].Agreement, list.Partners[0].Proof))

	// Keys and addresses can change without a new agreement.
	renewed := first
	renewed.Registration.Offer, renewed.Registration.RedirectURIs = nil, []string{"https://flimmer.example/back"}
	_, err = w.inbox.PutPartner(w.ctx, renewed)
	w.must(err)

	// An agreement of the same number with other words, an older one, another root key: refused.
	a.number = 0
	other := first
	other.Registration.Offer = a.offer(func(g *grant.Agreement) { g.PostsPerMinute = 1000 })
	_, err = w.inbox.PutPartner(w.ctx, other)
	w.refused(err, chat.Exists)
	impostor := &app{w: w, id: "flimmer", root: newKey(w), key: newKey(w), number: 1}
	_, err = w.inbox.PutPartner(w.ctx, api.AcceptAgreement{Registration: impostor.registration(impostor.offer(nil))})
	w.refused(err, chat.Forbidden)
	if got, err := w.inbox.GetAgreement(w.ctx, "flimmer"); err != nil || got.PostsPerMinute != 60 || got.Number != 1 {
		t.Errorf("a refused offer is in force: %+v, %v", got, err)
	}
	a.number = 1
	w.must(a.register(func(g *grant.Agreement) { g.PostsPerMinute = 1000 }))
	if got, err := w.inbox.GetAgreement(w.ctx, "flimmer"); err != nil || got.PostsPerMinute != 1000 || got.Number != 2 {
		t.Errorf("the newer agreement: %+v, %v", got, err)
	}
	st, err := w.inbox.Status(w.ctx)
	w.must(err)
	if st.Partners != 1 || st.LedgerSize != int64(len(w.leaves())) || st.Outbox != 0 {
		t.Errorf("status: %+v, with %d leaves", st, len(w.leaves()))
	}
}

func TestAdminOfNobody(t *testing.T) {
	w := newWorld(t)
	for what, err := range map[string]error{
		"agreement": errOf(w.inbox.GetAgreement(w.ctx, "none")), "stop": w.inbox.StopPartner(w.ctx, "none", api.StopPartner{}), "resume": w.inbox.ResumePartner(w.ctx, "none"),
		"report": errOf(w.inbox.BuildReport(w.ctx, api.ReportQuery{Partner: "none"})), "figures": w.inbox.PutPartnerFigures(w.ctx, "none", api.InboxFigures{}),
	} {
		if !chat.Is(err, chat.NotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	w.app("flimmer")
	w.refused(w.inbox.StopPartner(w.ctx, "flimmer", api.StopPartner{Reason: "a\u202eb"}), chat.Invalid)
	if got, err := w.inbox.GetAgreement(w.ctx, "flimmer"); err != nil || !got.Active {
		t.Errorf("a refused stop stopped it: %v", err)
	}
}

// TestReportFromPosts: what agents sent and people clicked is in the report, with the partner's own figures.
func TestReportFromPosts(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send)
	l := g.letter()
	l.Labels.Interface = "tv"
	_, err := l.send()
	w.must(err)
	link, err := w.inbox.Link(g.ctx, api.InboxLink{Base: "https://flimmer.example/films", Interface: "tv"})
	w.must(err)
	_, err = w.reports.Follow(w.ctx, link.ID)
	w.must(err)
	day := w.clock.now().UTC().Format(time.DateOnly)
	w.must(w.inbox.PutFigures(g.ctx, api.InboxFigures{Figures: []api.Figure{{Day: day, Interface: "tv", Recipient: api.RecipientNotTold, Sends: 1, Clicks: 1}}}))
	got, err := w.inbox.BuildReport(w.ctx, api.ReportQuery{Partner: "flimmer", Threshold: 1})
	w.must(err)
	want := `"total":{"sends":{"count":1,"partner":1,"agrees":true},"clicks":{"count":1,"partner":1,"agrees":true}}}`
	if !bytes.HasSuffix(got.Report, []byte(want)) {
		t.Errorf("the report: %s", got.Report)
	}
}

// TestConsent: who may see a request, and when it becomes a code.
func TestConsent(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := flimmer.ask(id, chat.Send, nil)
	_, err := w.inbox.GetConsent(w.ctx, g.request)
	w.refused(err, chat.Unauthenticated)
	_, err = w.inbox.GetConsent(alice.ctx, "none")
	w.refused(err, chat.NotFound)
	r, err := w.inbox.GetConsent(alice.ctx, g.request)
	w.must(err)
	if r.Partner.Name != "Flimmer" || len(r.Partner.Agreement) == 0 || len(r.Partner.Proof) == 0 || !r.Partner.Active || !bytes.Equal(r.Certs, g.certs) {
		t.Errorf("the request: %+v", r)
	}
	finish := func(p *person) error { return errOf(w.inbox.FinishConsent(p.ctx, g.request)) }
	w.refused(errOf(w.inbox.FinishConsent(w.ctx, g.request)), chat.Unauthenticated)
	w.refused(finish(alice), chat.Forbidden) // nothing signed
	w.must(alice.put(g, alice.draft(g, chat.Send)))
	w.refused(finish(alice), chat.Forbidden) // not in its thread
	alice.commit(id, alice.admission(g))
	w.refused(finish(bob), chat.Forbidden) // not his
	to, err := w.inbox.FinishConsent(alice.ctx, g.request)
	w.must(err)
	if to.URL == "" {
		t.Error("no way back")
	}
	w.refused(errOf(w.inbox.RefuseConsent(w.ctx, g.request)), chat.Unauthenticated)
	if _, err := w.inbox.RefuseConsent(bob.ctx, g.request); err != nil {
		t.Error(err)
	}
	alice.commit(id, alice.removal(g, alice.revocation(g)))
	w.refused(finish(alice), chat.Forbidden) // revoked before the code was fetched
}

// TestJudgeRequest: what no person could grant is refused when it is asked.
func TestJudgeRequest(t *testing.T) {
	for name, c := range map[string]struct {
		kind  chat.Kind
		spoil func(w *world, a *app, r *api.ConsentRequest)
	}{
		"":                {"", func(*world, *app, *api.ConsentRequest) {}},
		"no such partner": {chat.NotFound, func(_ *world, _ *app, r *api.ConsentRequest) { r.Partner.ID = "other" }},
		"a stopped partner": {chat.Forbidden, func(w *world, _ *app, _ *api.ConsentRequest) {
			w.must(w.inbox.StopPartner(w.ctx, "flimmer", api.StopPartner{}))
		}},
		"more than agreed": {chat.Forbidden, func(w *world, a *app, _ *api.ConsentRequest) {
			w.must(a.register(func(g *grant.Agreement) { g.Actions = chat.Send }))
		}},
		"longer than agreed": {chat.Forbidden, func(w *world, _ *app, r *api.ConsentRequest) {
			r.ValidUntil = w.clock.now().Add(366 * 24 * time.Hour).UnixMilli()
		}},
		"no actions":             {chat.Invalid, func(_ *world, _ *app, r *api.ConsentRequest) { r.Actions = nil }},
		"certificates of nobody": {chat.Invalid, func(_ *world, _ *app, r *api.ConsentRequest) { r.Certs = []byte{1} }},
		"certificates over":      {chat.Expired, func(w *world, _ *app, _ *api.ConsentRequest) { w.clock.pass(31 * 24 * time.Hour) }},
		"another KeyPackage": {chat.Tampered, func(w *world, a *app, r *api.ConsentRequest) {
			r.KeyPackage = a.ask(chat.ConversationID{1}, chat.Read, nil).kp.Public
		}},
		"a grant id used before": {chat.Exists, func(w *world, a *app, r *api.ConsentRequest) {
			alice := w.person("alice")
			g := a.ask(alice.found("flimmer"), chat.Send, nil)
			w.must(alice.put(g, alice.draft(g, chat.Send)))
			r.Grant, r.Certs, r.Actions = g.grant, g.certs, []string{"send"}
		}},
		"a thread it never was in": {chat.NotFound, func(w *world, _ *app, r *api.ConsentRequest) {
			r.Pick, r.Thread = false, w.person("bob").found("flimmer")
		}},
		"no thread": {chat.NotFound, func(_ *world, _ *app, r *api.ConsentRequest) { r.Pick, r.Thread = false, chat.NewConversationID() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.app("flimmer")
			g := a.ask(chat.ConversationID{1}, chat.AllActions, nil)
			r := w.oauth.open[g.request]
			c.spoil(w, a, &r)
			err := w.store.View(w.ctx, w.judging(r))
			if c.kind == "" {
				w.must(err)
				return
			}
			w.refused(err, c.kind)
		})
	}
}

// TestKnownThread: a partner may ask again for a thread that it had a grant in.
func TestKnownThread(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	alice.grants(flimmer, id, chat.Send)
	g := flimmer.ask(id, chat.AllActions, func(r *api.ConsentRequest) { r.Pick, r.Thread = false, id })
	w.must(w.store.View(w.ctx, w.judging(w.oauth.open[g.request])))
	other := w.app("other")
	o := other.ask(id, chat.AllActions, func(r *api.ConsentRequest) { r.Pick, r.Thread = false, id })
	w.refused(w.store.View(w.ctx, w.judging(w.oauth.open[o.request])), chat.NotFound)
}

// TestHistoryIsOnesOwn: nobody reads another's grants, records or bundle.
func TestHistoryIsOnesOwn(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send)
	g.posts()
	w.publish()
	for what, err := range map[string]error{
		"grants": errOf(w.inbox.ListGrants(g.ctx)), "records": errOf(w.inbox.Records(g.ctx, api.RecordQuery{Partner: "flimmer", Chain: "access"})),
		"bundle": errOf(w.inbox.Bundle(g.ctx, "flimmer")), "grant": errOf(w.inbox.PutGrant(g.ctx, api.PutGrant{})),
	} {
		if !chat.Is(err, chat.Unauthenticated) {
			t.Errorf("%s with an agent's token: %v", what, err)
		}
	}
	list, err := w.inbox.ListGrants(bob.ctx)
	w.must(err)
	if len(list.Grants) != 0 || len(bob.says("flimmer", proof.Control)) != 0 || len(bob.says("flimmer", proof.Access)) != 0 {
		t.Error("Bob sees Alice's history")
	}
	list, err = w.inbox.ListGrants(alice.ctx)
	w.must(err)
	if len(list.Grants) != 1 || list.Grants[0].State != "live" || !bytes.Equal(list.Grants[0].Signed, g.signed) {
		t.Errorf("Alice's grants: %+v", list)
	}
	w.refused(errOf(w.inbox.Records(alice.ctx, api.RecordQuery{Partner: "flimmer", Chain: "both"})), chat.Invalid)
	w.refused(errOf(w.inbox.Bundle(alice.ctx, "../x")), chat.Invalid)
}
