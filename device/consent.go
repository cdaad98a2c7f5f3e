package device

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/proof"
)

// proofWait is how long a device waits for the ledger to include what it needs proven, in seconds.
const proofWait = 30

// Consent is a partner's request, checked and ready to be shown to the person.
type Consent struct {
	Request   api.ConsentRequest
	Agreement *grant.Agreement
	Actions   chat.Actions // what is asked for
}

// Sentences says in plain words what saying yes would mean.
func (q *Consent) Sentences() []string {
	name := q.Agreement.Name
	var s []string
	if q.Actions.Has(chat.Send) {
		s = append(s, fmt.Sprintf("%s may write messages in this one thread in your name, without asking you each time.", name))
	}
	if q.Actions.Has(chat.Read) {
		s = append(s, fmt.Sprintf("%s can read everything written in this one thread from then on, and learns who is in it. Your friend is told, and it stands on their record too.", name))
	} else {
		s = append(s, fmt.Sprintf("%s cannot read anything: it gets no key that opens a message.", name))
	}
	if q.Actions.Has(chat.Delete) {
		s = append(s, fmt.Sprintf("%s may take back what it wrote for you.", name))
	}
	return append(s, fmt.Sprintf("The permission ends on %s, or at once when you revoke it. What %s could read before, it may have kept.",
		time.UnixMilli(q.Request.ValidUntil).UTC().Format("2 January 2006"), name))
}

// OpenConsent fetches what a partner asks for, by the authorization URL that the partner's app opened, and checks that the partner
// has an agreement that allows it to ask, that the agreement stands in the ledger, and that the keys are the partner's.
func (c *Client) OpenConsent(ctx context.Context, authorizationURL string) (*Consent, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, err := c.requestID(authorizationURL)
	if err != nil {
		return nil, err
	}
	r, err := c.server.GetConsent(ctx, id)
	if err != nil {
		return nil, err
	}
	q := &Consent{Request: r}
	if q.Actions, err = chat.ParseActions(r.Actions); err != nil {
		return nil, err
	}
	if q.Agreement, err = c.checkPartner(ctx, r.Partner); err != nil {
		return nil, err
	}
	if !q.Agreement.Actions.Has(q.Actions) {
		return nil, chat.Errorf(chat.Forbidden, "%s asks for more than its agreement allows", q.Agreement.Name)
	}
	if _, err := grant.CheckCerts(r.Certs, q.Agreement.RootKey[:], q.Agreement.Partner, r.Grant, c.ms()); err != nil {
		return nil, chat.Wrap(chat.Tampered, err, "the key in this request is not %s's", q.Agreement.Name)
	}
	return q, nil
}

// requestID finds the request in an authorization URL of this server.
func (c *Client) requestID(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", chat.Errorf(chat.Invalid, "this is not an authorization address")
	}
	if u.Host != c.self.Host {
		return "", chat.Errorf(chat.Invalid, "this authorization address is of another server than %s", c.self.Host)
	}
	id, ok := strings.CutPrefix(u.Query().Get("request_uri"), "urn:ietf:params:oauth:request_uri:") // RFC 9126 section 2.2
	if !ok || id == "" {
		return "", chat.Errorf(chat.Invalid, "the authorization address names no request")
	}
	return id, nil
}

// checkPartner checks a partner's public entry: both signatures, in force, in the ledger that this device remembers.
func (c *Client) checkPartner(ctx context.Context, p api.Partner) (*grant.Agreement, error) {
	a, err := grant.OpenAgreement(p.Agreement, c.policy.trust.Operator)
	if err != nil {
		return nil, chat.Wrap(chat.Tampered, err, "the agreement with %s does not hold", p.ID)
	}
	if a.Partner != p.ID || a.Host != c.self.Host {
		return nil, chat.Errorf(chat.Tampered, "the server shows another partner's agreement")
	}
	if now := c.ms(); !p.Active || now < a.NotBefore || now >= a.NotAfter {
		return nil, chat.Errorf(chat.Forbidden, "the agreement with %s is not in force", a.Name)
	}
	leaf := proof.Agreement{Countersigned: p.Agreement}
	if _, _, err := c.prove(ctx, proof.LeafHash(leaf.Bytes()), proofWait); err != nil {
		return nil, err
	}
	return a, c.rememberPartner(p.ID, a.Name)
}

func (c *Client) rememberPartner(id, name string) error {
	return c.state.Update(func(tx StateTx) error { return tx.Put(bucketPartner, id, []byte(name)) })
}

// partnerName is the name under which a partner has its agreement; its id where no agreement was seen yet.
func (c *Client) partnerName(id string) string {
	name := id
	c.state.View(func(tx StateTx) error {
		if v, err := tx.Get(bucketPartner, id); err == nil && v != nil {
			name = string(v)
		}
		return nil
	})
	return name
}

// Answer is how a person answers a request.
type Answer struct {
	Friend   string            // where the request lets the person pick
	Actions  chat.Actions      // what is allowed: what was asked for, or less
	Until    time.Time         // when it ends; zero: as asked
	Progress func(step string) // told what is being waited for; may be nil
}

// Allow says yes: the grant is signed, logged, proven and committed to the thread, and only then does the partner get its code. It
// returns the address to go to.
func (c *Client) Allow(ctx context.Context, q *Consent, a Answer) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tell := func(format string, args ...any) {
		if a.Progress != nil {
			a.Progress(fmt.Sprintf(format, args...))
		}
	}
	if a.Actions == 0 {
		a.Actions = q.Actions
	}
	if !q.Actions.Has(a.Actions) {
		return "", chat.Errorf(chat.Forbidden, "%s did not ask for %s", q.Agreement.Name, a.Actions)
	}
	id, err := c.threadFor(ctx, q, a.Friend)
	if err != nil {
		return "", err
	}
	tell("checking the ledger, and that your history is complete")
	if _, err := c.check(ctx); err != nil {
		return "", err
	}
	tell("checking the thread and its people")
	if err := c.checkPreferences(ctx, id, q.Agreement); err != nil {
		return "", err
	}
	g, signed, err := c.signGrant(ctx, q, a, id)
	if err != nil {
		return "", err
	}
	tell("handing in the signed grant")
	record, err := c.putGrant(ctx, q, signed)
	if err != nil {
		return "", err
	}
	tell("waiting for the ledger to include it")
	_, recordProof, err := c.prove(ctx, record.LeafHash(), proofWait)
	if err != nil {
		return "", keptOut("your grant", err)
	}
	tell("telling everyone in the thread")
	leaf := proof.Agreement{Countersigned: q.Request.Partner.Agreement}
	_, agreementProof, err := c.prove(ctx, proof.LeafHash(leaf.Bytes()), proofWait)
	if err != nil {
		return "", err
	}
	err = c.commitGrant(ctx, id, q, g, grant.Proof{
		Signed: signed, Agreement: q.Request.Partner.Agreement, AgreementProof: agreementProof,
		Certs: q.Request.Certs, Record: record.Bytes(), RecordProof: recordProof,
	})
	if err != nil {
		return "", err
	}
	redirect, err := c.server.FinishConsent(ctx, q.Request.ID)
	return redirect.URL, err
}

// Refuse says no.
func (c *Client) Refuse(ctx context.Context, q *Consent) (string, error) {
	redirect, err := c.server.RefuseConsent(ctx, q.Request.ID)
	return redirect.URL, err
}

// threadFor is the thread that a request is about; where the person picks the friend, the thread with them for this partner.
func (c *Client) threadFor(ctx context.Context, q *Consent, friend string) (chat.ConversationID, error) {
	if q.Request.Pick {
		if friend == "" {
			return chat.ConversationID{}, chat.Errorf(chat.Invalid, "%s asks you to pick a friend: name one", q.Agreement.Name)
		}
		return c.with(ctx, friend, q.Agreement.Partner)
	}
	if err := c.syncConversation(ctx, q.Request.Thread); err != nil {
		return q.Request.Thread, err
	}
	conv, _, err := c.loadGroup(q.Request.Thread)
	if err != nil {
		return conv.ID, err
	}
	if conv.Kind != grant.Shared || conv.Partner != q.Agreement.Partner {
		return conv.ID, chat.Errorf(chat.Forbidden, "%s asks for a conversation that was not made for it", q.Agreement.Name)
	}
	return conv.ID, nil
}

// checkPreferences heeds people who want no apps.
func (c *Client) checkPreferences(ctx context.Context, id chat.ConversationID, a *grant.Agreement) error {
	_, g, err := c.loadGroup(id)
	if err != nil {
		return err
	}
	for _, handle := range peopleOf(g.Roster()) {
		chain, err := c.chainOf(ctx, handle)
		if err != nil {
			return err
		}
		if chain.Preferences().Refuses(a.Partner) {
			return chat.Errorf(chat.Forbidden, "%s wants no conversations with %s in them", handle, a.Name)
		}
	}
	return nil
}

func (c *Client) signGrant(ctx context.Context, q *Consent, a Answer, id chat.ConversationID) (*grant.Grant, []byte, error) {
	_, group, err := c.loadGroup(id)
	if err != nil {
		return nil, nil, err
	}
	t, err := grant.ThreadOf(group.Roster())
	if err != nil {
		return nil, nil, err
	}
	key, err := grant.CheckCerts(q.Request.Certs, q.Agreement.RootKey[:], q.Agreement.Partner, q.Request.Grant, c.ms())
	if err != nil {
		return nil, nil, err
	}
	counter, err := c.freshGrant(ctx, q.Agreement.Partner, q.Request.Grant)
	if err != nil {
		return nil, nil, err
	}
	chain, err := c.refreshChain(ctx, c.self.Account)
	if err != nil {
		return nil, nil, err
	}
	g := &grant.Grant{
		ID: q.Request.Grant, Account: c.self.Account, Handle: c.self.Handle, Partner: q.Agreement.Partner,
		Agreement: grant.AgreementHash(q.Request.Partner.Agreement), Actions: a.Actions, Conversation: id, AgentKey: [32]byte(key),
		ChainVersion: chain.Version(), SlotSigners: deviceKeys(group.Roster()), Issued: c.ms(), Expiry: q.Request.ValidUntil,
		Counter: counter, Previous: previousOf(t, c.self.Account), Device: c.self.Device,
	}
	if !a.Until.IsZero() && a.Until.UnixMilli() < g.Expiry {
		g.Expiry = a.Until.UnixMilli()
	}
	signed, err := g.Sign(c.key.Private())
	return g, signed, err
}

// freshGrant makes sure that the person never signed a grant of this id, and returns the counter of the next control record.
func (c *Client) freshGrant(ctx context.Context, partner string, id chat.GrantID) (uint64, error) {
	all, err := c.records(ctx, partner, proof.Control)
	if err != nil {
		return 0, err
	}
	for _, r := range all {
		said, err := r.Says()
		if err != nil {
			return 0, err
		}
		if p, ok := said.(*proof.Grant); ok {
			if g, err := grant.Peek(p.Signed); err == nil && g.ID == id {
				return 0, chat.Errorf(chat.Tampered, "the request names a grant that you signed before: a grant is never used again")
			}
		}
	}
	return uint64(len(all)), nil
}

// previousOf is the grant of one's own that stands in the thread already; a new one takes its place.
func previousOf(t grant.Thread, account chat.AccountID) grant.Hash {
	for _, e := range t.Grants {
		if e.Account == account {
			return e.Hash
		}
	}
	return grant.Hash{}
}

// putGrant hands in what was signed and checks that the record that comes back says just that.
func (c *Client) putGrant(ctx context.Context, q *Consent, signed []byte) (*proof.Record, error) {
	answer, err := c.server.PutGrant(ctx, api.PutGrant{Request: q.Request.ID, Signed: signed})
	if err != nil {
		return nil, err
	}
	record, err := proof.ParseRecord(answer.Record)
	if err != nil {
		return nil, err
	}
	if err := record.CheckAlone(c.policy.vrf); err != nil {
		return nil, err
	}
	said, err := record.Says()
	if p, ok := said.(*proof.Grant); err != nil || !ok || !bytes.Equal(p.Signed, signed) || record.Account != c.self.Account {
		return nil, c.alarm(chat.ConversationID{}, chat.Errorf(chat.Tampered, "the server recorded another grant than the one that was signed"), answer.Record)
	}
	return record, nil
}

// commitGrant lets the grant into the thread: its entry and, under read, its leaf, in one commit.
func (c *Client) commitGrant(ctx context.Context, id chat.ConversationID, q *Consent, g *grant.Grant, p grant.Proof) error {
	return c.commit(ctx, id, func(group *mls.Group, t grant.Thread) (*change, error) {
		if _, in := t.Find(g.ID); in {
			return nil, nil
		}
		ch := &change{proofs: grant.Proofs{Grants: []grant.Proof{p}}.Marshal()}
		for _, e := range t.Grants {
			if e.Hash == g.Previous {
				t = t.Without(e.Grant)
				ch.remove = append(ch.remove, leavesOf(group.Roster(), e.Grant)...)
			}
		}
		t = t.With(g.Entry(p.Signed))
		ch.thread = &t
		if g.Actions.Has(chat.Read) {
			if err := c.checkAgentPackage(q, g); err != nil {
				return nil, err
			}
			ch.add = [][]byte{q.Request.KeyPackage}
		}
		return ch, nil
	})
}

// checkAgentPackage makes sure that the leaf to be added is the partner's agent under this grant and nobody else.
func (c *Client) checkAgentPackage(q *Consent, g *grant.Grant) error {
	info, err := roster.InspectKeyPackage(q.Request.KeyPackage, c.now())
	if err != nil {
		return chat.Wrap(chat.Invalid, err, "%s sent a KeyPackage that does not hold", q.Agreement.Name)
	}
	if string(info.Identity) != chat.AgentURI(c.self.Host, g.Partner, g.ID) || !bytes.Equal(info.SignatureKey, g.AgentKey[:]) {
		return c.alarm(chat.ConversationID{}, chat.Errorf(chat.Tampered, "the KeyPackage in the request is not %s's", q.Agreement.Name), q.Request.KeyPackage)
	}
	return nil
}

// leavesOf is the leaf of a grant's agent, if it has one.
func leavesOf(g *roster.Group, id chat.GrantID) (leaves []uint32) {
	for _, m := range g.Members() {
		if who, err := chat.ParseIdentity(m.Identity); err == nil && who.IsAgent() && who.Grant == id {
			leaves = append(leaves, m.Leaf)
		}
	}
	return leaves
}

// Revoke ends a grant: the signed revocation and the commit that removes entry and leaf go as one bundle.
func (c *Client) Revoke(ctx context.Context, id chat.GrantID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	conv, e, err := c.findGrant(id)
	if err != nil {
		return err
	}
	return c.end(ctx, conv, e)
}

// end removes a grant from its thread: one's own with its signed revocation, another person's without.
func (c *Client) end(ctx context.Context, conv conversation, e grant.Entry) error {
	if e.Account != c.self.Account {
		return c.dropGrant(ctx, conv, e.Grant, nil)
	}
	counter, err := c.nextControl(ctx, conv.Partner)
	if err != nil {
		return err
	}
	r := grant.Revocation{Grant: e.Grant, Account: c.self.Account, Handle: c.self.Handle, Partner: conv.Partner, Conversation: conv.ID,
		Counter: counter, At: c.ms(), Device: c.self.Device}
	signed, err := r.Sign(c.key.Private())
	if err != nil {
		return err
	}
	if err := c.dropGrant(ctx, conv, e.Grant, [][]byte{signed}); err != nil {
		return err
	}
	err = c.proveControl(ctx, conv.Partner, counter, signed)
	if chat.Is(err, chat.NoQuorum) { // it is done; that it was shows when the witnesses sign again
		return nil
	}
	return err
}

// proveControl makes sure that what was signed stands in the person's history and in the ledger, at its place.
func (c *Client) proveControl(ctx context.Context, partner string, n uint64, signed []byte) error {
	all, err := c.records(ctx, partner, proof.Control)
	if err != nil {
		return err
	}
	if n < uint64(len(all)) {
		if said, err := all[n].Says(); err == nil && bytes.Equal(signedIn(said), signed) {
			if _, _, err := c.prove(ctx, all[n].LeafHash(), proofWait); err != nil {
				return keptOut("what you signed, and what is done in the thread,", err)
			}
			_, err := c.check(ctx)
			return err
		}
	}
	return c.alarm(chat.ConversationID{}, chat.Errorf(chat.Tampered, "it is done in the thread, but the server did not put it on your record"), signed)
}

// signedIn is what a control record holds.
func signedIn(said proof.Payload) []byte {
	switch p := said.(type) {
	case *proof.Grant:
		return p.Signed
	case *proof.Narrow:
		return p.Signed
	case *proof.Revoke:
		return p.Signed
	}
	return nil
}

func (c *Client) dropGrant(ctx context.Context, conv conversation, id chat.GrantID, control [][]byte) error {
	return c.commit(ctx, conv.ID, func(g *mls.Group, t grant.Thread) (*change, error) {
		if _, in := t.Find(id); !in {
			return nil, nil
		}
		t = t.Without(id)
		return &change{thread: &t, remove: leavesOf(g.Roster(), id), control: control}, nil
	})
}

// Narrow leaves a grant fewer actions.
func (c *Client) Narrow(ctx context.Context, id chat.GrantID, left chat.Actions) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	conv, e, err := c.findGrant(id)
	if err != nil {
		return err
	}
	if e.Account != c.self.Account {
		return chat.Errorf(chat.Forbidden, "only %s can narrow this; you can end it", e.Handle)
	}
	if left == 0 || !e.Actions.Has(left) || left == e.Actions {
		return chat.Errorf(chat.Invalid, "name fewer actions than %s, and at least one", e.Actions)
	}
	counter, err := c.nextControl(ctx, conv.Partner)
	if err != nil {
		return err
	}
	n := grant.Narrowing{Grant: id, Account: c.self.Account, Handle: c.self.Handle, Partner: conv.Partner, Conversation: conv.ID,
		Actions: left, Counter: counter, At: c.ms(), Device: c.self.Device}
	signed, err := n.Sign(c.key.Private())
	if err != nil {
		return err
	}
	err = c.commit(ctx, conv.ID, func(g *mls.Group, t grant.Thread) (*change, error) {
		e, in := t.Find(id)
		if !in || e.Actions == left {
			return nil, nil
		}
		e.Actions = left
		t = t.With(e)
		ch := &change{thread: &t, control: [][]byte{signed}}
		if !left.Has(chat.Read) {
			ch.remove = leavesOf(g.Roster(), id)
		}
		return ch, nil
	})
	if err != nil {
		return err
	}
	return c.proveControl(ctx, conv.Partner, counter, signed)
}

// findGrant finds the conversation that lists a grant.
func (c *Client) findGrant(id chat.GrantID) (conversation, grant.Entry, error) {
	all, err := c.grants()
	if err != nil {
		return conversation{}, grant.Entry{}, err
	}
	for _, g := range all {
		if g.entry.Grant == id {
			return g.conv, g.entry, nil
		}
	}
	return conversation{}, grant.Entry{}, chat.Errorf(chat.NotFound, "no conversation of yours lists this grant")
}

type standing struct {
	conv  conversation
	entry grant.Entry
}

func (c *Client) grants() (all []standing, err error) {
	ids, err := c.conversationIDs()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		conv, g, err := c.readGroup(id)
		if err != nil {
			return nil, err
		}
		if g == nil {
			continue
		}
		t, err := grant.ThreadOf(g.Roster())
		if err != nil {
			return nil, err
		}
		for _, e := range t.Grants {
			all = append(all, standing{conv, e})
		}
	}
	return all, nil
}

// LiveGrant is a permission that stands in one of this device's conversations.
type LiveGrant struct {
	Grant        chat.GrantID        `json:"grant"`
	Partner      string              `json:"partner"`
	Name         string              `json:"name"`
	By           string              `json:"by"`
	Actions      []string            `json:"actions"`
	Conversation chat.ConversationID `json:"conversation"`
	Until        int64               `json:"until"`
}

// LiveGrants lists who may do what in this device's conversations, whoever allowed it.
func (c *Client) LiveGrants() ([]LiveGrant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, err := c.grants()
	list := []LiveGrant{}
	for _, g := range all {
		list = append(list, LiveGrant{g.entry.Grant, g.conv.Partner, c.partnerName(g.conv.Partner), g.entry.Handle, g.entry.Actions.Names(), g.conv.ID, g.entry.Expiry})
	}
	return list, err
}

// DropRefusedApps removes apps from this device's conversations that the person's own key chain refuses.
func (c *Client) DropRefusedApps(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.sync(ctx); err != nil {
		return err
	}
	chain, err := c.ownChain()
	if err != nil {
		return err
	}
	all, err := c.grants()
	if err != nil {
		return err
	}
	for _, g := range all {
		if !chain.Preferences().Refuses(g.conv.Partner) {
			continue
		}
		if err := c.end(ctx, g.conv, g.entry); err != nil {
			return err
		}
	}
	return nil
}
