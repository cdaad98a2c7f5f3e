package agent

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	vrf "filippo.io/mostly-harmless/vrf-r255"
	"golang.org/x/mod/sumdb/note"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mimi"
	"letterlock/proof"
	"letterlock/vault"
)

// bench is an agent with its folder, without a server: for what happens between a page's arrival and the disk.
type bench struct {
	t    *testing.T
	ring *ring
	dir  string
	a    *Agent
	d    *desk
	vrf  *vrf.PrivateKey
	n    uint64
	log  bytes.Buffer
}

// newBench opens an agent that holds a reading grant of alice's and has joined.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, ring: newRing(t), dir: t.TempDir(), vrf: vrf.GenerateKey()}
	_, vkey, err := note.GenerateKey(rand.Reader, proof.Origin(testHost))
	b.no(err)
	v, err := vault.Open(b.dir, vault.Options{})
	b.no(err)
	agentSeed, err := newKey[agentKey](rand.Reader)
	b.no(err)
	clientSeed, err := newKey[clientKey](rand.Reader)
	b.no(err)
	c := config{Version: stateVersion, Partner: testPartner, Name: "Flimmer", RedirectURI: DefaultRedirect, AgentSeed: seed(agentSeed), ClientSeed: seed(clientSeed),
		Server: pinned{Host: testHost, URL: "https://" + testHost, ServerKey: b.ring.trust().Operator, LedgerVKey: vkey, VRFKey: b.vrf.PublicKey().Bytes()}}
	b.no(v.Update(func(tx *vault.Tx) error { return save(tx, bucketAgent, "config", c) }))
	b.a = b.open(v)
	g, rd := b.ring.reading("alice", chat.Read|chat.Send)
	h := g.held
	h.KeyPackage, h.Last = nil, uint64(len(b.ring.log))
	b.no(v.Update(func(tx *vault.Tx) error { return saveReader(tx, h, rd) }))
	b.sit(h.Grant)
	return b
}

func (b *bench) open(v *vault.Vault) *Agent {
	b.t.Helper()
	env := Env{Now: func() time.Time { return testNow }, Rand: rand.Reader}
	a, err := open(v, env, slog.New(slog.NewTextHandler(&b.log, nil)))
	b.no(err)
	return a
}

// sit takes up the grant from the disk, as after a start.
func (b *bench) sit(id chat.GrantID) {
	b.t.Helper()
	d, err := b.a.at(id)
	b.no(err)
	d.mu.Unlock()
	b.d = d
	if d.held.Phase == Live {
		b.no(b.a.loadReader(b.t.Context(), d))
	}
}

// restart closes nothing: it copies the folder as a kill would leave it, and opens the copy.
func (b *bench) restart() {
	b.t.Helper()
	dir := b.t.TempDir()
	b.no(os.CopyFS(filepath.Join(dir, "copy"), os.DirFS(b.dir)))
	b.no(os.Chmod(filepath.Join(dir, "copy", "key"), 0o600))
	v, err := vault.Open(filepath.Join(dir, "copy"), vault.Options{})
	b.no(err)
	id := b.d.held.Grant
	b.a, b.dir = b.open(v), filepath.Join(dir, "copy")
	b.sit(id)
}

func (b *bench) no(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// promise makes an open record from an entry on, as the server discloses and promises it.
func (b *bench) promise(change func(*proof.Open)) (open, promise []byte) {
	b.t.Helper()
	o := &proof.Open{Conversation: b.ring.id, Grant: b.d.held.Grant, Epoch: b.ring.epoch(), Period: proof.Period(testNow.UnixMilli()), From: 1}
	if change != nil {
		change(o)
	}
	payload, err := proof.MarshalPayload(o)
	b.no(err)
	place := proof.Place{Account: b.ring.people["alice"].account, Partner: testPartner, Chain: proof.Access, N: b.n}
	var before *proof.Hash
	if b.n > 0 {
		before = &proof.Hash{1}
	}
	b.n++
	r, err := proof.NewRecord(place, proof.ProveLabel(b.vrf, place), payload, before, rand.Reader)
	b.no(err)
	open, err = r.Disclose()
	b.no(err)
	promise, err = proof.MakePromise(b.ring.operator, testHost, r.LeafHash(), testNow.UnixMilli())
	b.no(err)
	return open, promise
}

// page serves entries, with the promised open records of both people.
func (b *bench) page(state string, entries ...api.Entry) api.InboxChanges {
	p := api.InboxChanges{State: state, Entries: entries}
	for range 2 {
		open, promise := b.promise(nil)
		p.Opens, p.Promises = append(p.Opens, open), append(p.Promises, promise)
	}
	return p
}

func TestPageIsStoredWhole(t *testing.T) {
	b := newBench(t)
	one, _ := b.ring.say("bob", mimi.Text("one"))
	two, _ := b.ring.say("bob", mimi.Text("two"))
	b.no(b.a.takePage(b.d, b.page("s1", one, two)))
	b.restart()
	want(t, texts(b.d.reader), "bob one", "bob two")
	if b.d.held.Since != "s1" || b.d.held.Last != two.Seq || b.d.held.Lines != 2 {
		t.Fatal("the state of the page was not stored with it")
	}
	c, err := b.a.counted(b.d.held.Grant, proof.Period(testNow.UnixMilli()))
	b.no(err)
	if c.From != one.Seq || c.To != two.Seq || c.Count != 2 || c.Epoch != one.Epoch {
		t.Fatalf("counted %+v", c)
	}
	// An answer that was lost comes again: nothing is shown or counted twice.
	three, _ := b.ring.say("alice", mimi.Text("three"))
	b.no(b.a.takePage(b.d, api.InboxChanges{State: "s2", Entries: []api.Entry{two, three}}))
	want(t, texts(b.d.reader), "bob one", "bob two", "alice three")
	if c, _ = b.a.counted(b.d.held.Grant, c.Period); c.Count != 3 {
		t.Fatalf("counted %d entries of 3", c.Count)
	}
}

// TestPageFailsWhole: a page that cannot be taken leaves state and ratchets as they were, so that it can be taken later.
func TestPageFailsWhole(t *testing.T) {
	b := newBench(t)
	one, _ := b.ring.say("bob", mimi.Text("one"))
	two, _ := b.ring.say("bob", mimi.Text("two"))
	gap := two
	gap.Seq++
	err := b.a.takePage(b.d, b.page("s1", one, gap))
	kindIs(t, err, chat.Tampered)
	b.restart()
	if b.d.held.Since != "" || len(texts(b.d.reader)) != 0 {
		t.Fatal("a part of the page was stored")
	}
	b.no(b.a.takePage(b.d, b.page("s1", one, two)))
	want(t, texts(b.d.reader), "bob one", "bob two")
}

// TestLogBeforeServe: without an open record for each person, promised for this hour and from the first entry on, nothing is read.
func TestLogBeforeServe(t *testing.T) {
	for name, c := range map[string]struct {
		kind  chat.Kind
		spoil func(b *bench, p *api.InboxChanges)
	}{
		"none":            {chat.Unproven, func(_ *bench, p *api.InboxChanges) { p.Opens, p.Promises = nil, nil }},
		"no promise":      {chat.Unproven, func(_ *bench, p *api.InboxChanges) { p.Promises = p.Promises[:1] }},
		"one person only": {chat.Tampered, func(_ *bench, p *api.InboxChanges) { p.Opens, p.Promises = p.Opens[:1], p.Promises[:1] }},
		"twice the same": {chat.Tampered, func(_ *bench, p *api.InboxChanges) {
			p.Opens[1], p.Promises[1] = p.Opens[0], p.Promises[0]
		}},
		"promises crossed": {chat.Unproven, func(_ *bench, p *api.InboxChanges) { p.Promises[0], p.Promises[1] = p.Promises[1], p.Promises[0] }},
		"signed by nobody": {chat.Unproven, func(_ *bench, p *api.InboxChanges) { p.Promises[0] = flip(p.Promises[0], len(p.Promises[0])-1) }},
		"changed record":   {chat.Unproven, func(_ *bench, p *api.InboxChanges) { p.Opens[0] = flip(p.Opens[0], len(p.Opens[0])-1) }},
		"of another grant": {chat.Unproven, func(b *bench, p *api.InboxChanges) {
			p.Opens[0], p.Promises[0] = b.promise(func(o *proof.Open) { o.Grant = chat.NewGrantID() })
		}},
		"of the last hour": {chat.Unproven, func(b *bench, p *api.InboxChanges) {
			for i := range p.Opens {
				p.Opens[i], p.Promises[i] = b.promise(func(o *proof.Open) { o.Period -= proof.PeriodLength })
			}
		}},
		"of the next hour": {chat.Unproven, func(b *bench, p *api.InboxChanges) {
			for i := range p.Opens {
				p.Opens[i], p.Promises[i] = b.promise(func(o *proof.Open) { o.Period += proof.PeriodLength })
			}
		}},
		"from later on": {chat.Unproven, func(b *bench, p *api.InboxChanges) {
			for i := range p.Opens {
				p.Opens[i], p.Promises[i] = b.promise(func(o *proof.Open) { o.From = 1000 })
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			one, _ := b.ring.say("bob", mimi.Text("one"))
			p := b.page("s1", one)
			c.spoil(b, &p)
			kindIs(t, b.a.takePage(b.d, p), c.kind)
			b.restart()
			if len(texts(b.d.reader)) != 0 {
				t.Fatal("something was read")
			}
		})
	}
}

// TestNothingIsCountersignedThatDidNotHappen: the agent signs its own count and nothing else; a lie is kept and ends reading.
func TestNothingIsCountersignedThatDidNotHappen(t *testing.T) {
	for name, spoil := range map[string]func(*proof.Statement){
		"an earlier beginning": func(s *proof.Statement) { s.From--; s.Count++ },
		"another epoch":        func(s *proof.Statement) { s.Epoch++ },
		"fewer entries":        func(s *proof.Statement) { s.Count-- },
		"another hour":         func(s *proof.Statement) { s.Period -= proof.PeriodLength },
		"another grant":        func(s *proof.Statement) { s.Grant = chat.NewGrantID() },
		"another thread":       func(s *proof.Statement) { s.Conversation = chat.NewConversationID() },
		"another host":         func(s *proof.Statement) { s.Host = "evil.example" },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			one, _ := b.ring.say("bob", mimi.Text("one"))
			b.no(b.a.takePage(b.d, b.page("s1", one)))
			c, err := b.a.counted(b.d.held.Grant, proof.Period(testNow.UnixMilli()))
			b.no(err)
			s := c.statement(testHost, b.d.held)
			spoil(&s)
			kindIs(t, b.a.countersign(t.Context(), b.d, [][]byte{s.Bytes()}), chat.Tampered)
			b.restart()
			if b.d.held.Phase != Stopped {
				t.Fatal("reading goes on")
			}
			list, err := b.a.Evidence("", 10)
			b.no(err)
			if len(list) != 1 || !bytes.Equal(list[0].Pieces[0], s.Bytes()) {
				t.Fatalf("evidence: %v", list)
			}
			if _, err := b.a.Changes(t.Context(), b.d.held.Grant, "", 10); !chat.Is(err, chat.Tampered) {
				t.Fatalf("reading was not stopped: %v", err)
			}
		})
	}
	t.Run("more than came", func(t *testing.T) { // an answer may have been lost: not signed, and no crime
		b := newBench(t)
		one, _ := b.ring.say("bob", mimi.Text("one"))
		b.no(b.a.takePage(b.d, b.page("s1", one)))
		c, err := b.a.counted(b.d.held.Grant, proof.Period(testNow.UnixMilli()))
		b.no(err)
		c.To, c.Count = c.To+3, c.Count+3
		s := c.statement(testHost, b.d.held)
		kindIs(t, b.a.countersign(t.Context(), b.d, [][]byte{s.Bytes()}), chat.Unproven)
		if b.d.held.Phase != Live {
			t.Fatal("reading was stopped")
		}
	})
}

// TestEraseLeavesNothing: after the end no key, token, group or word of the grant is on the disk, in clear or under the vault's key.
func TestEraseLeavesNothing(t *testing.T) {
	b := newBench(t)
	one, _ := b.ring.say("bob", mimi.Text("canary in a thread"))
	b.no(b.a.takePage(b.d, b.page("s1", one)))
	id := b.d.held.Grant
	b.no(b.a.vault.Update(func(tx *vault.Tx) error {
		if err := save(tx, bucketTokens, id.String(), tokens{Version: stateVersion, Access: "a", Refresh: "r"}); err != nil {
			return err
		}
		return save(tx, bucketLetters, under(id, "k"), letter{Version: stateVersion, Content: []byte("letter")})
	}))
	b.no(b.a.erase(b.d, "a test"))
	b.restart0(id)
	b.no(b.a.vault.View(func(tx *vault.Tx) error {
		for _, bucket := range append(bucketsUnder, bucketTokens, bucketGroups) {
			names, err := tx.List(bucket, "", 10)
			if err != nil || len(names) != 0 {
				t.Errorf("%s still holds %v (%v)", bucket, names, err)
			}
		}
		h, ok, err := load[held](tx, bucketGrants, id.String())
		if err != nil || !ok || h.Phase != Ended || len(h.Seed)+len(h.KeyPackage)+len(h.Certs)+len(h.Signed) != 0 {
			t.Errorf("the grant's line is %v %v", ok, err)
		}
		return nil
	}))
	_, err := b.a.Send(t.Context(), id, Letter{Text: "x"})
	kindIs(t, err, chat.Gone)
	_, err = b.a.Changes(t.Context(), id, "", 10)
	kindIs(t, err, chat.Gone)
}

// restart0 is restart without sitting down at a grant.
func (b *bench) restart0(id chat.GrantID) {
	b.no(b.a.Close())
	v, err := vault.Open(b.dir, vault.Options{})
	b.no(err)
	b.a = b.open(v)
}

// TestTakenBackIsForgotten: what its sender deleted is not kept under the vault's key either.
func TestTakenBackIsForgotten(t *testing.T) {
	b := newBench(t)
	first, id := b.ring.say("bob", mimi.Text("canary one"))
	edit, _ := b.ring.say("bob", mimi.Edit(id, "canary two"))
	b.no(b.a.takePage(b.d, b.page("s1", first, edit)))
	gone, _ := b.ring.say("bob", mimi.Delete(id))
	b.no(b.a.takePage(b.d, api.InboxChanges{State: "s2", Entries: []api.Entry{gone}}))
	lines := 0
	b.no(b.a.vault.View(func(tx *vault.Tx) error {
		return scan(tx, bucketLines, b.d.held.Grant, "", func(name string) error {
			l, _, err := load[line](tx, bucketLines, name)
			lines++
			if bytes.Contains(l.Content, []byte("canary")) {
				t.Errorf("line %s still says it", name)
			}
			return err
		})
	}))
	if lines != 2 { // where the message was, and its delete
		t.Errorf("%d lines", lines)
	}
	b.restart()
	want(t, texts(b.d.reader), "bob (deleted)")
}

// TestSecretsDoNotPrint: keys and state print as placeholders, whatever the verb, and no log holds them.
func TestSecretsDoNotPrint(t *testing.T) {
	b := newBench(t)
	h := b.d.held
	secret := [][]byte{h.Seed, b.a.config.AgentSeed, b.a.config.ClientSeed}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, v := range []any{h, &h, b.d.key, b.a.agent, b.a.config, tokens{Access: "canary"}, letter{Content: []byte("canary")}, line{Content: []byte("canary")},
			asked{State: "canary", Verifier: "canary"}, b.a.oauth.key, rootKey(b.d.key)} {
			out := fmt.Sprintf(verb, v)
			if strings.Contains(out, "canary") || strings.Contains(out, "63616e617279") {
				t.Errorf("%s of %T prints its content", verb, v)
			}
			for _, s := range secret {
				for _, form := range []string{fmt.Sprintf("%x", s[:8]), fmt.Sprintf("%d", s[:8])} {
					if strings.Contains(out, strings.Trim(form, "[]")) {
						t.Errorf("%s of %T prints a key", verb, v)
					}
				}
			}
		}
	}
	b.no(b.a.erase(b.d, "a test"))
	if out, _ := io.ReadAll(&b.log); bytes.Contains(out, secret[0]) || len(out) == 0 {
		t.Error("the log holds a key, or nothing at all")
	}
}
