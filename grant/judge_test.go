package grant_test

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"testing"
	"time"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls"
	"letterlock/mls/roster"
)

// TestAGrantThatMayNotEnter spoils one part of a good grant at a time (rules 2 to 5, 8 and 10 of spec/grant.md).
func TestAGrantThatMayNotEnter(t *testing.T) {
	w := newWorld(t)
	mallory := key("mallory")
	// substitute puts another key in the place of the grant's, wherever whoever commits can.
	substitute := func(d *draft) {
		d.grant.AgentKey = public32(mallory)
		d.leaf = func() *mls.KeyPackage { return w.keyPackage(d.identity(), mallory) }
	}
	// other makes everything of another partner's but the thread.
	other := func(d *draft) {
		d.agreement = w.agree(func(a *grant.Agreement) { a.Partner = "other" })
		d.grant.Agreement, d.grant.Partner = grant.AgreementHash(d.agreement), "other"
		d.agentCert.Partner, d.grantCert.Partner = "other", "other"
		d.noLeaf, d.grant.Actions = true, chat.Send
	}
	// under puts the grant under an agreement.
	under := func(d *draft, agreement []byte) {
		d.agreement, d.grant.Agreement = agreement, grant.AgreementHash(agreement)
	}
	countersigned := func() (c grant.Countersigned) {
		if err := canon.Unmarshal(w.agreement, &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, c := range []struct {
		name  string
		spoil func(*draft)
		kind  chat.Kind
		says  string
	}{
		// Rule 4: the proof.
		{"no proof", func(d *draft) { d.noProof = true }, chat.Unproven, "without its proof"},
		{"the proof of another grant", func(d *draft) {
			d.proof = func(p *grant.Proof) { p.Signed = must(w.draft(d.by, 9, chat.Read).grant.Sign(d.key)) }
		},
			chat.Unproven, "without its proof"},
		{"proofs that cannot be read", func(d *draft) { d.commit = func(o *mls.CommitOptions) { o.AuthenticatedData = []byte("proof") } },
			chat.Invalid, "cannot be read"},
		{"proofs of another version", func(d *draft) {
			d.commit = func(o *mls.CommitOptions) {
				o.AuthenticatedData = canon.MustMarshal(grant.Proofs{Version: 2, Grants: []grant.Proof{{}}})
			}
		}, chat.Invalid, "malformed"},
		{"a list of no proofs", func(d *draft) {
			d.commit = func(o *mls.CommitOptions) { o.AuthenticatedData = canon.MustMarshal(grant.Proofs{Version: 1}) }
		}, chat.Invalid, "malformed"},
		{"proofs above the limit", func(d *draft) {
			d.commit = func(o *mls.CommitOptions) { o.AuthenticatedData = make([]byte, grant.MaxProofs+1) }
		}, chat.TooLarge, "larger than"},
		{"the same proof twice", func(d *draft) { d.proofs = func(l *grant.Proofs) { l.Grants = append(l.Grants, l.Grants[0]) } },
			chat.Invalid, "does not need"},
		{"a proof that no entry needs", func(d *draft) {
			d.proofs = func(l *grant.Proofs) { l.Grants = append(l.Grants, grant.Proof{Signed: []byte("x")}) }
		}, chat.Invalid, "does not need"},

		// Rule 4: who signed.
		{"signed by nobody's key", func(d *draft) { d.key = mallory }, chat.Invalid, "not signed by the device"},
		{"signed by a friend in the person's name", func(d *draft) { d.key = w.bob.key }, chat.Invalid, "not signed by the device"},
		{"signed by another device of the person", func(d *draft) { d.key, d.grant.Device = w.aliceLaptop.key, w.aliceLaptop.device },
			chat.Invalid, "not signed by the device"},
		{"committed by a friend", func(d *draft) { d.by = w.bob }, chat.Invalid, "not signed by the device"},
		{"committed by another device of the person", func(d *draft) { d.by = w.aliceLaptop }, chat.Invalid, "not signed by the device"},
		{"in the name of another device", func(d *draft) { d.grant.Device = w.aliceLaptop.device }, chat.Forbidden, "by the device that signed it"},
		{"in a friend's name", func(d *draft) { d.grant.Handle = "bob" }, chat.Forbidden, "by the device that signed it"},
		{"a signature that does not hold", func(d *draft) {
			spoiled := func(p []byte) []byte { p = bytes.Clone(p); p[len(p)-1] ^= 1; return p }
			d.proof = func(p *grant.Proof) { p.Signed = spoiled(p.Signed) }
			d.entry = func(e *grant.Entry) { e.Hash = grant.HashOf(spoiled(must(d.grant.Sign(d.key)))) }
		}, chat.Invalid, "not signed by the device"},
		{"a revocation for a grant", func(d *draft) {
			r := grant.Revocation{Grant: d.grant.ID, Account: d.grant.Account, Handle: "alice", Partner: testPartner, Conversation: w.id, At: nowMS, Device: d.by.device}
			signed := must(r.Sign(d.key))
			d.proof = func(p *grant.Proof) { p.Signed = signed }
			d.entry = func(e *grant.Entry) { e.Hash = grant.HashOf(signed) }
		}, chat.Invalid, "not signed by the device"},

		// Rule 4: where it belongs.
		{"for another conversation", func(d *draft) { d.grant.Conversation = chat.ConversationID{1} }, chat.Forbidden, "for another conversation"},
		{"for another partner", other, chat.Forbidden, "made for another partner"},

		// Rule 4: the entry is the grant's.
		{"the entry has more actions", func(d *draft) {
			d.grant.Actions = chat.Send
			d.entry = func(e *grant.Entry) { e.Actions = chat.Send | chat.Delete }
		},
			chat.Invalid, "not what the grant says"},
		{"the entry has fewer actions", func(d *draft) { d.noLeaf = true; d.entry = func(e *grant.Entry) { e.Actions = chat.Send } },
			chat.Invalid, "not what the grant says"},
		{"the entry lasts longer", func(d *draft) { d.entry = func(e *grant.Entry) { e.Expiry++ } }, chat.Invalid, "not what the grant says"},
		{"the entry has another key", func(d *draft) { d.entry = func(e *grant.Entry) { e.AgentKey = public32(mallory) } }, chat.Invalid, "not what the grant says"},
		{"the entry has another account", func(d *draft) { d.entry = func(e *grant.Entry) { e.Account = w.bob.account } }, chat.Invalid, "not what the grant says"},
		{"the entry has another handle", func(d *draft) { d.entry = func(e *grant.Entry) { e.Handle = "bob" } }, chat.Invalid, "not what the grant says"},
		{"the entry has another id", func(d *draft) { d.entry = func(e *grant.Entry) { e.Grant = chat.GrantID{0xee} } }, chat.Invalid, "not what the grant says"},
		{"the entry has another hash", func(d *draft) { d.entry = func(e *grant.Entry) { e.Hash[0] ^= 1 } }, chat.Unproven, "without its proof"},

		// Rule 4: the agreement.
		{"the agreement without the operator", func(d *draft) {
			a := countersigned()
			a.Operator = nil
			under(d, canon.MustMarshal(a))
		}, chat.Invalid, "not signed by this server's operator"},
		{"the agreement signed by another operator", func(d *draft) { under(d, must(grant.Countersign(d.agreement, mallory))) },
			chat.Invalid, "not signed by this server's operator"},
		{"the partner's signature for the operator's", func(d *draft) {
			a := countersigned()
			a.Operator = a.Partner
			under(d, canon.MustMarshal(a))
		}, chat.Invalid, "not signed by this server's operator"},
		{"the agreement without the partner", func(d *draft) {
			a := countersigned()
			a.Partner = nil
			under(d, canon.MustMarshal(a))
		}, chat.Invalid, "not signed by the partner's root key"},
		{"no agreement", func(d *draft) { under(d, nil) }, chat.Invalid, "cannot be read"},
		{"another agreement than the grant names", func(d *draft) { d.agreement = w.agree(func(a *grant.Agreement) { a.Number = 2 }) },
			chat.Invalid, "stands on another agreement"},
		{"the agreement of another host", func(d *draft) { under(d, w.agree(func(a *grant.Agreement) { a.Host = "other.example" })) },
			chat.Invalid, "stands on another agreement"},
		{"the agreement of another partner", func(d *draft) { under(d, w.agree(func(a *grant.Agreement) { a.Partner = "other" })) },
			chat.Invalid, "another partner's"},
		{"the agreement allows less", func(d *draft) { under(d, w.agree(func(a *grant.Agreement) { a.Actions = chat.Send })) },
			chat.Forbidden, "allows send only"},
		{"before the agreement", func(d *draft) { under(d, w.agree(func(a *grant.Agreement) { a.NotBefore = nowMS + 1 })) }, chat.Expired, "not in force"},
		{"after the agreement", func(d *draft) {
			under(d, w.agree(func(a *grant.Agreement) { a.NotBefore, a.NotAfter = nowMS-2000, nowMS }))
		}, chat.Expired, "not in force"},
		{"beyond the agreement", func(d *draft) { under(d, w.agree(func(a *grant.Agreement) { a.NotAfter = d.grant.Expiry - 1 })) },
			chat.Invalid, "would outlive"},
		{"the agreement is not logged", func(d *draft) { d.proof = func(p *grant.Proof) { p.AgreementProof = nil } },
			chat.Unproven, "does not hold the agreement"},

		// Rule 4: the ledger holds the grant.
		{"the grant is not logged", func(d *draft) { d.proof = func(p *grant.Proof) { p.RecordProof = logged([]byte("another")) } },
			chat.Unproven, "does not hold the grant"},
		{"the record of another grant", func(d *draft) {
			d.proof = func(p *grant.Proof) { p.Record = []byte("record"); p.RecordProof = logged(p.Record) }
		}, chat.Unproven, "does not hold the grant"},

		// Rule 4: the certificates.
		{"no certificates", func(d *draft) { d.proof = func(p *grant.Proof) { p.Certs = nil } }, chat.Invalid, "certificates cannot be read"},
		{"certificates above the limit", func(d *draft) { d.proof = func(p *grant.Proof) { p.Certs = make([]byte, grant.MaxCerts+1) } },
			chat.TooLarge, "larger than"},
		{"certified by another root", func(d *draft) { d.root = mallory }, chat.Invalid, "not signed by the key above it"},
		{"certified by another agent", func(d *draft) { d.agent = mallory }, chat.Invalid, "not signed by the key above it"},
		{"certified by the root, past the agent", func(d *draft) { d.agent = w.root }, chat.Invalid, "not signed by the key above it"},
		{"a certificate for another grant", func(d *draft) { d.grantCert.Grant = chat.GrantID{0xee} }, chat.Invalid, "for something else"},
		{"a certificate of another partner", func(d *draft) { d.grantCert.Partner = "other" }, chat.Invalid, "for something else"},
		{"an agent certificate of another partner", func(d *draft) { d.agentCert.Partner = "other" }, chat.Invalid, "for something else"},
		{"an agent certificate in a grant's name", func(d *draft) { d.agentCert.Grant = d.grant.ID }, chat.Invalid, "for something else"},
		{"a grant's certificate for an agent's", func(d *draft) { d.agentCert.Purpose = grant.GrantPurpose }, chat.Invalid, "for something else"},
		{"an agent's certificate for a grant's", func(d *draft) { d.grantCert.Purpose = grant.AgentPurpose }, chat.Invalid, "for something else"},
		{"an agent certificate that was over", func(d *draft) { d.agentCert.NotAfter = nowMS }, chat.Expired, "not valid then"},
		{"an agent certificate that had not begun", func(d *draft) { d.agentCert.NotBefore = nowMS + 1 }, chat.Expired, "not valid then"},
		{"a certificate that was over", func(d *draft) { d.grantCert.NotAfter = nowMS }, chat.Expired, "not valid then"},
		{"a certificate that had not begun", func(d *draft) { d.grantCert.NotBefore = nowMS + 1 }, chat.Expired, "not valid then"},
		{"a certificate that ends before it begins", func(d *draft) { d.grantCert.NotBefore = d.grantCert.NotAfter }, chat.Invalid, "malformed"},
		{"a key that the partner did not certify", substitute, chat.Tampered, "did not certify"},

		// Rule 5.
		{"it replaces what was never there", func(d *draft) { d.grant.Previous = grant.Hash{1} }, chat.Invalid, "not in the thread"},

		// Rules 8 and 10: the leaf.
		{"read without a leaf", func(d *draft) { d.noLeaf = true }, chat.Invalid, "without its leaf"},
		{"a leaf without read", func(d *draft) {
			d.grant.Actions = chat.Send
			d.commit = func(o *mls.CommitOptions) { o.Add = [][]byte{w.keyPackage(d.identity(), d.posts).Public} }
		}, chat.Forbidden, "without a grant to read"},
		{"a leaf without an entry", func(d *draft) {
			d.noProof, d.thread = true, func(t grant.Thread, _ grant.Entry) grant.Thread { return t }
		}, chat.Forbidden, "without a grant to read"},
		{"a leaf of another grant", func(d *draft) {
			d.leaf = func() *mls.KeyPackage {
				return w.keyPackage([]byte(chat.AgentURI(testHost, testPartner, chat.GrantID{0xee})), d.posts)
			}
		}, chat.Forbidden, "without a grant to read"},
		{"a leaf with another key", func(d *draft) { d.leaf = func() *mls.KeyPackage { return w.keyPackage(d.identity(), mallory) } },
			chat.Forbidden, "without a grant to read"},
		{"a leaf of another partner", func(d *draft) {
			d.leaf = func() *mls.KeyPackage {
				return w.keyPackage([]byte(chat.AgentURI(testHost, "other", d.grant.ID)), d.posts)
			}
		}, chat.Forbidden, "without a grant to read"},
		{"a leaf of another host", func(d *draft) {
			d.leaf = func() *mls.KeyPackage {
				return w.keyPackage([]byte(chat.AgentURI("other.example", testPartner, d.grant.ID)), d.posts)
			}
		}, chat.Forbidden, "of another host"},
		{"a second leaf with a name of its own", func(d *draft) {
			d.commit = func(o *mls.CommitOptions) {
				o.Add = append(o.Add, w.keyPackage([]byte(chat.AgentURI(testHost, testPartner, chat.GrantID{0xee})), mallory).Public)
			}
		}, chat.Forbidden, "without a grant to read"},
		{"a person of another host", func(d *draft) {
			d.commit = func(o *mls.CommitOptions) {
				o.Add = append(o.Add, w.keyPackage([]byte(chat.DeviceURI("other.example", "carol", chat.DeviceID{1})), mallory).Public)
			}
		}, chat.Forbidden, "of another host"},
		{"a member who is neither", func(d *draft) {
			d.commit = func(o *mls.CommitOptions) { o.Add = append(o.Add, w.keyPackage([]byte("carol"), mallory).Public) }
		}, chat.Invalid, "neither a device nor an agent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := w.draft(w.alicePhone, 1, chat.AllActions)
			c.spoil(d)
			_, err := w.judge(d.by.group, d.options())
			refused(t, err, c.kind, c.says)
		})
	}
	// The world is as it was, so that each case failed by its own spoiling.
	if v, err := w.judge(w.alicePhone.group, w.draft(w.alicePhone, 1, chat.AllActions).options()); err != nil || len(v.Added) != 1 {
		t.Fatalf("the good grant: %v", err)
	}
}

// TestAGrantEnters: what is accepted, and what the verdict says of it.
func TestAGrantEnters(t *testing.T) {
	w := newWorld(t)
	for _, actions := range []chat.Actions{chat.Send, chat.Delete, chat.Send | chat.Delete, chat.Read, chat.AllActions} {
		for _, by := range w.people() {
			d := w.draft(by, 1, actions)
			v, err := w.judge(by.group, d.options())
			if err != nil {
				t.Fatalf("%s by %s: %v", actions, by.name, err)
			}
			if len(v.Added) != 1 || len(v.Ended)+len(v.Narrowed) != 0 || len(v.Before.Grants) != 0 || len(v.After.Grants) != 1 {
				t.Fatalf("%s: verdict %+v", actions, v)
			}
			a := v.Added[0]
			if a.Grant.ID != d.grant.ID || a.Entry != a.Grant.Entry(a.Proof.Signed) || a.Entry.Actions != actions || v.Committer.String() != string(by.name) {
				t.Fatalf("%s: added %+v", actions, a)
			}
		}
	}

	// Two in one commit, each with its proof, in either order.
	first, second := w.draft(w.bob, 1, chat.Read), w.draft(w.bob, 2, chat.Send)
	o, p := first.options(), second.options()
	one, two := must(grant.OpenProofs(o.AuthenticatedData)), must(grant.OpenProofs(p.AuthenticatedData))
	o.AuthenticatedData = grant.Proofs{Grants: []grant.Proof{two.Grants[0], one.Grants[0]}}.Marshal()
	thread := w.threadOf(w.bob)
	for _, proof := range []grant.Proof{one.Grants[0], two.Grants[0]} {
		g := must(grant.Peek(proof.Signed))
		thread = thread.With(g.Entry(proof.Signed))
	}
	o.Extensions = w.with(w.bob, thread)
	if v, err := w.judge(w.bob.group, o); err != nil || len(v.Added) != 2 {
		t.Fatalf("two at once: %v", err)
	}

	// And a commit that changes nothing, or adds a person, says so.
	carol := device("carol", 1)
	for name, o := range map[string]mls.CommitOptions{"renewal": {}, "a person": {Add: [][]byte{w.keyPackage(carol.name, carol.key).Public}},
		"a person leaves": {Remove: []uint32{w.leafOf(w.bob)}}} {
		v, err := w.judge(w.alicePhone.group, o)
		if err != nil || len(v.Added)+len(v.Ended)+len(v.Narrowed) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// standing is a thread with Alice's grant 1, all actions, its agent's leaf, and Bob's grant 2, send and delete.
func standing(t testing.TB) (w *world, alices, bobs grant.Entry) {
	w = newWorld(t)
	alices = w.admit(w.alicePhone, 1, chat.AllActions)
	bobs = w.admit(w.bob, 2, chat.Send|chat.Delete)
	return w, alices, bobs
}

func (w *world) agentOf(e grant.Entry) *member { return w.agents[e.Grant] }

// TestAnEntryThatStands: rules 1, 2, 6, 7 and 8 of spec/grant.md.
func TestAnEntryThatStands(t *testing.T) {
	w, alices, bobs := standing(t)
	agent := w.agentOf(alices)
	thread := w.threadOf(w.bob)
	but := func(e grant.Entry, spoil func(*grant.Entry)) grant.Thread { spoil(&e); return thread.With(e) }
	narrowed := func(e grant.Entry, to chat.Actions) grant.Thread {
		return but(e, func(e *grant.Entry) { e.Actions = to })
	}
	agentsLeaf := []uint32{w.leafOf(agent)}
	for _, c := range []struct {
		name   string
		by     *member
		thread grant.Thread
		remove []uint32
		kind   chat.Kind // "": accepted
		says   string
	}{
		{"a friend removes a reader", w.bob, thread.Without(alices.Grant), agentsLeaf, "", ""},
		{"its own person removes a reader", w.aliceLaptop, thread.Without(alices.Grant), agentsLeaf, "", ""},
		{"a friend removes a sender", w.alicePhone, thread.Without(bobs.Grant), nil, "", ""},
		{"read goes, with its leaf", w.aliceLaptop, narrowed(alices, chat.Send|chat.Delete), agentsLeaf, "", ""},
		{"delete goes", w.alicePhone, narrowed(alices, chat.Send|chat.Read), nil, "", ""},
		{"send goes", w.bob, narrowed(bobs, chat.Delete), nil, "", ""},
		{"all go at once", w.bob, thread.Without(alices.Grant).Without(bobs.Grant), agentsLeaf, "", ""},

		{"an agent commits", agent, thread, nil, chat.Forbidden, "only a person's device"},
		{"an agent removes its own entry's friend", agent, thread.Without(bobs.Grant), nil, chat.Forbidden, "only a person's device"},
		{"an entry is widened", w.bob, narrowed(bobs, chat.Send|chat.Delete|chat.Read), nil, chat.Forbidden, "not changed or widened"},
		{"an entry is exchanged", w.bob, narrowed(bobs, chat.Read), nil, chat.Forbidden, "not changed or widened"},
		{"an entry is narrowed and widened", w.bob, narrowed(bobs, chat.Send|chat.Read), nil, chat.Forbidden, "not changed or widened"},
		{"an entry lasts longer", w.bob, but(bobs, func(e *grant.Entry) { e.Expiry++ }), nil, chat.Forbidden, "not changed or widened"},
		{"an entry gets another key", w.bob, but(bobs, func(e *grant.Entry) { e.AgentKey[0] ^= 1 }), nil, chat.Forbidden, "not changed or widened"},
		{"an entry gets another person", w.bob, but(bobs, func(e *grant.Entry) { e.Handle = "alice" }), nil, chat.Forbidden, "not changed or widened"},
		{"an entry gets another account", w.bob, but(bobs, func(e *grant.Entry) { e.Account = alices.Account }), nil, chat.Forbidden, "not changed or widened"},
		{"an entry gets another hash", w.bob, but(bobs, func(e *grant.Entry) { e.Hash[0] ^= 1 }), nil, chat.Forbidden, "not changed or widened"},
		{"an entry is narrowed and lasts longer", w.bob, but(bobs, func(e *grant.Entry) { e.Actions = chat.Send; e.Expiry++ }), nil, chat.Forbidden, "not changed or widened"},
		{"a friend narrows", w.bob, narrowed(alices, chat.Read), nil, chat.Forbidden, "narrowed by its own person"},
		{"a friend narrows, and removes the leaf", w.bob, narrowed(alices, chat.Send), agentsLeaf, chat.Forbidden, "narrowed by its own person"},
		{"the entry goes and the leaf stays", w.alicePhone, thread.Without(alices.Grant), nil, chat.Forbidden, "without a grant to read"},
		{"read goes and the leaf stays", w.alicePhone, narrowed(alices, chat.Send), nil, chat.Forbidden, "without a grant to read"},
		{"the leaf goes and the entry stays", w.bob, thread, agentsLeaf, chat.Invalid, "without its leaf"},
		{"the entry is copied under another id", w.bob, thread.With(func() grant.Entry { e := bobs; e.Grant = chat.GrantID{0xee}; return e }()), nil,
			chat.Unproven, "without its proof"},
		{"the thread turns private", w.bob, grant.NewThread(testHost, ""), agentsLeaf, chat.Forbidden, "never changes"},
		{"the thread turns private and keeps its grants", w.bob, grant.Thread{Version: 1, Kind: grant.Private, Host: testHost, Grants: thread.Grants}, nil,
			chat.Forbidden, "admits no partner"},
		{"the partner changes", w.bob, grant.NewThread(testHost, "other"), agentsLeaf, chat.Forbidden, "never changes"},
		{"the partner goes", w.bob, grant.Thread{Version: 1, Kind: grant.Shared, Host: testHost}, agentsLeaf, chat.Invalid, "names its partner"},
		{"the host changes", w.bob, grant.NewThread("other.example", testPartner), agentsLeaf, chat.Forbidden, "never changes"},
		{"an unknown kind", w.bob, grant.Thread{Version: 1, Kind: 2, Host: testHost, Partner: testPartner}, agentsLeaf, chat.Invalid, "unknown kind"},
		{"an unknown version", w.bob, grant.Thread{Version: 2, Kind: grant.Shared, Host: testHost, Partner: testPartner}, agentsLeaf, chat.Incompatible, "version 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := w.judge(c.by.group, mls.CommitOptions{Extensions: w.with(c.by, c.thread), Remove: c.remove})
			if c.kind != "" {
				refused(t, err, c.kind, c.says)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if gone := len(thread.Grants) - len(c.thread.Grants); len(v.Ended) != gone || gone == 0 && len(v.Narrowed) != 1 || len(v.Added) != 0 {
				t.Errorf("verdict: %d ended, %d narrowed, %d added", len(v.Ended), len(v.Narrowed), len(v.Added))
			}
			if len(v.Narrowed) == 1 && (v.Narrowed[0].Before == v.Narrowed[0].After || !v.Narrowed[0].Before.Actions.Has(v.Narrowed[0].After.Actions)) {
				t.Errorf("narrowed: %+v", v.Narrowed[0])
			}
		})
	}
}

// TestReplacing: rule 5.
func TestReplacing(t *testing.T) {
	w, alices, bobs := standing(t)
	thread := w.threadOf(w.bob)
	for _, c := range []struct {
		name     string
		by       *member
		previous grant.Hash
		without  []chat.GrantID
		remove   []uint32
		kind     chat.Kind
		says     string
	}{
		{"send by read", w.bob, bobs.Hash, []chat.GrantID{bobs.Grant}, nil, "", ""},
		{"read by read, from another device", w.aliceLaptop, alices.Hash, []chat.GrantID{alices.Grant}, []uint32{w.leafOf(w.agentOf(alices))}, "", ""},
		{"beside the one before", w.bob, grant.Hash{}, nil, nil, "", ""},
		{"the replaced one stays", w.bob, bobs.Hash, nil, nil, chat.Invalid, "not in the thread"},
		{"the replaced one was never there", w.bob, grant.Hash{1}, []chat.GrantID{bobs.Grant}, nil, chat.Invalid, "not in the thread"},
		{"another person's", w.bob, alices.Hash, []chat.GrantID{alices.Grant}, []uint32{w.leafOf(w.agentOf(alices))}, chat.Invalid, "not in the thread"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := w.draft(c.by, 7, chat.Read|chat.Send)
			d.grant.Previous = c.previous
			d.thread = func(_ grant.Thread, e grant.Entry) grant.Thread {
				after := thread
				for _, id := range c.without {
					after = after.Without(id)
				}
				return after.With(e)
			}
			d.commit = func(o *mls.CommitOptions) { o.Remove = c.remove }
			v, err := w.judge(c.by.group, d.options())
			if c.kind != "" {
				refused(t, err, c.kind, c.says)
				return
			}
			if err != nil || len(v.Added) != 1 || len(v.Ended) != len(c.without) {
				t.Fatalf("%v %+v", err, v)
			}
		})
	}
}

// TestPrivateAdmitsNobody: rule 3.
func TestPrivateAdmitsNobody(t *testing.T) {
	w := newWorldOf(t, "")
	for _, actions := range []chat.Actions{chat.Send, chat.AllActions} {
		_, err := w.judge(w.alicePhone.group, w.draft(w.alicePhone, 1, actions).options())
		refused(t, err, chat.Forbidden, "admits no partner")
	}
	o := w.draft(w.alicePhone, 1, chat.Read).options()
	o.Extensions, o.AuthenticatedData = nil, nil
	_, err := w.judge(w.alicePhone.group, o)
	refused(t, err, chat.Forbidden, "without a grant to read")
	_, err = w.judge(w.alicePhone.group, mls.CommitOptions{Extensions: w.with(w.alicePhone, grant.NewThread(testHost, testPartner))})
	refused(t, err, chat.Forbidden, "never changes")
	if _, err := w.judge(w.alicePhone.group, mls.CommitOptions{}); err != nil {
		t.Errorf("an ordinary commit: %v", err)
	}
}

// TestTheContextStays: rule 2. A member who may commit may not change who speaks from outside, nor what members must support.
func TestTheContextStays(t *testing.T) {
	w := newWorld(t)
	now := w.bob.group.Roster().Extensions()
	mallory := key("mallory")
	drop := func(typ uint16) roster.Extensions {
		return slices.DeleteFunc(slices.Clone(now), func(x roster.Extension) bool { return x.Type == typ })
	}
	for _, c := range []struct {
		name string
		x    roster.Extensions
		kind chat.Kind
		says string
	}{
		{"our extension goes", drop(grant.ExtensionType), chat.Invalid, "lacks the letterlock extension"},
		{"our extension is no extension", replace(now, roster.Extension{Type: grant.ExtensionType, Data: []byte{0x80}}), chat.Invalid, "cannot be read"},
		{"our extension is huge", replace(now, roster.Extension{Type: grant.ExtensionType, Data: make([]byte, grant.MaxThread+1)}), chat.TooLarge, "larger than"},
		{"the server goes", drop(roster.ExtExternalSenders), chat.Invalid, "this server alone"},
		{"another for the server", replace(now, w.senders(mallory)), chat.Invalid, "this server alone"},
		{"another beside the server", replace(now, w.senders(w.operator, mallory)), chat.Invalid, "this server alone"},
		{"the server twice", replace(now, w.senders(w.operator, w.operator)), chat.Invalid, "this server alone"},
		{"the server under another name", replace(now, roster.ExternalSendersExtension(roster.ExternalSender{SignatureKey: public(w.operator),
			Credential: roster.BasicCredential([]byte("mimi://other.example"))})), chat.Forbidden, "nothing of a conversation's context"},
		{"the requirements go", drop(roster.ExtRequiredCapabilities), chat.Forbidden, "nothing of a conversation's context"},
		{"the requirements shrink", replace(now, roster.RequiredCapabilities{}.Extension()), chat.Forbidden, "nothing of a conversation's context"},
		{"something is added", append(slices.Clone(now), roster.Extension{Type: roster.ExtApplicationID, Data: make([]byte, 1000)}), chat.Forbidden,
			"nothing of a conversation's context"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := w.judge(w.bob.group, mls.CommitOptions{Extensions: &c.x})
			refused(t, err, c.kind, c.says)
		})
	}
	same := slices.Clone(now)
	slices.Reverse(same)
	if _, err := w.judge(w.bob.group, mls.CommitOptions{Extensions: &same}); err != nil {
		t.Errorf("the same in another order: %v", err)
	}
	// A judge of another server takes no commit at all.
	trust := w.trust()
	trust.Operator = public(mallory)
	p := must(w.bob.group.Commit(mls.CommitOptions{}))
	defer p.Discard()
	_, err := grant.Judge(p.Change(), trust)
	refused(t, err, chat.Invalid, "this server alone")
}

// proposed is a member's group that remembers a proposal of somebody else's.
func proposed(t *testing.T, m *member, msg []byte) *mls.Group {
	t.Helper()
	done, err := m.group.Process(msg, time.Time{})
	if err != nil || done.Group == nil {
		t.Fatal("no proposal: ", err)
	}
	return done.Group
}

// TestTheServerProposes: rule 9.
func TestTheServerProposes(t *testing.T) {
	w, alices, bobs := standing(t)
	agent := w.agentOf(alices)
	thread := w.threadOf(w.bob)
	remove := func(leaf uint32) []byte {
		return must(roster.ExternalRemove(w.bob.group.Roster(), w.operator, 0, leaf, []byte("expired")))
	}
	g := proposed(t, w.bob, remove(w.leafOf(agent)))
	v, err := w.judge(g, mls.CommitOptions{Extensions: w.with(w.bob, thread.Without(alices.Grant))})
	if err != nil || len(v.Ended) != 1 || v.Ended[0] != alices {
		t.Fatalf("the server removes an agent: %v", err)
	}
	_, err = w.judge(g, mls.CommitOptions{})
	refused(t, err, chat.Invalid, "without its leaf")
	_, err = w.judge(g, mls.CommitOptions{Extensions: w.with(w.bob, thread.Without(alices.Grant).Without(bobs.Grant)), IgnorePending: true})
	refused(t, err, chat.Forbidden, "without a grant to read")

	g = proposed(t, w.bob, remove(w.leafOf(w.aliceLaptop)))
	_, err = w.judge(g, mls.CommitOptions{})
	refused(t, err, chat.Forbidden, "may not remove a person")

	// What mls/roster does not let an external sender propose is refused here as well.
	p := must(w.bob.group.Commit(mls.CommitOptions{}))
	defer p.Discard()
	for name, c := range map[string]struct {
		p    *roster.Proposal
		kind chat.Kind
		says string
	}{
		"an addition":     {&roster.Proposal{Type: roster.ProposalAdd}, chat.Forbidden, "removals only"},
		"other context":   {&roster.Proposal{Type: roster.ProposalGroupContextExtensions}, chat.Forbidden, "removals only"},
		"nobody's remove": {&roster.Proposal{Type: roster.ProposalRemove, Remove: 1000}, chat.Invalid, "remove nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			change := *p.Change()
			change.Proposals = []roster.ProposalInfo{{Ref: []byte{1}, Sender: roster.Sender{Type: roster.SenderExternal}, Proposal: c.p}}
			_, err := grant.Judge(&change, w.trust())
			refused(t, err, c.kind, c.says)
		})
	}
}

// TestAReaderIsNotPutBack: the agent's leaf goes and comes again in one commit, under an entry that nobody touched. A friend could do so
// with the agent's help, against the server's removal and past the person who granted.
func TestAReaderIsNotPutBack(t *testing.T) {
	w, alices, _ := standing(t)
	agent := w.agentOf(alices)
	leaf := w.leafOf(agent)
	again := func() [][]byte { return [][]byte{w.keyPackage(agent.name, agent.key).Public} }
	for _, by := range w.people() {
		_, err := w.judge(by.group, mls.CommitOptions{Remove: []uint32{leaf}, Add: again()})
		refused(t, err, chat.Forbidden, "not again under the same one")
		g := proposed(t, by, must(roster.ExternalRemove(by.group.Roster(), w.operator, 0, leaf, nil)))
		_, err = w.judge(g, mls.CommitOptions{Add: again()})
		refused(t, err, chat.Forbidden, "not again under the same one")
	}
}

// TestMembersPropose: a commit takes up what a member wishes for its own leaf, and nothing that others would have it do in its name.
func TestMembersPropose(t *testing.T) {
	w, alices, _ := standing(t)
	agent := w.agentOf(alices)
	thread := w.threadOf(w.bob)
	update, _, err := agent.group.ProposeUpdate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.judge(proposed(t, w.bob, update), mls.CommitOptions{}); err != nil {
		t.Errorf("an agent renews its leaf: %v", err)
	}
	leave, _, err := agent.group.ProposeRemove(w.leafOf(agent), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.judge(proposed(t, w.bob, leave), mls.CommitOptions{Extensions: w.with(w.bob, thread.Without(alices.Grant))}); err != nil {
		t.Errorf("an agent leaves: %v", err)
	}
	leave, _, err = w.bob.group.ProposeRemove(w.leafOf(w.bob), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.judge(proposed(t, w.alicePhone, leave), mls.CommitOptions{}); err != nil {
		t.Errorf("a person leaves: %v", err)
	}

	for name, by := range map[string]*member{"an agent": agent, "a person": w.bob} {
		msg, _, err := by.group.ProposeRemove(w.leafOf(w.aliceLaptop), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.judge(proposed(t, w.alicePhone, msg), mls.CommitOptions{})
		t.Run(name+" would remove another", func(t *testing.T) { refused(t, err, chat.Forbidden, "its own leaf only") })
	}

	// Alice's own commit narrows her grant, as Bob proposed it: the same change as hers, but not her wish.
	narrowed := alices
	narrowed.Actions = chat.Read
	p := must(w.alicePhone.group.Commit(mls.CommitOptions{Extensions: w.with(w.alicePhone, thread.With(narrowed))}))
	defer p.Discard()
	if _, err := grant.Judge(p.Change(), w.trust()); err != nil {
		t.Fatalf("her own narrowing: %v", err)
	}
	change := *p.Change()
	change.Proposals = slices.Clone(change.Proposals)
	change.Proposals[0].Ref, change.Proposals[0].Sender.Index = []byte{1}, w.leafOf(w.bob)
	_, err = grant.Judge(&change, w.trust())
	refused(t, err, chat.Forbidden, "its own leaf only")
}

// TestNoPreSharedKey: the server cannot know who holds a pre-shared key. A commit that takes one in would lock everybody else out.
func TestNoPreSharedKey(t *testing.T) {
	w := newWorld(t)
	public := w.bob.group.Roster()
	a := roster.AuthenticatedContent{WireFormat: roster.WirePublicMessage, ConfirmationTag: make([]byte, 32), Content: roster.Content{
		GroupID: public.ID(), Epoch: public.Epoch(), Sender: roster.Sender{Type: roster.SenderMember, Index: w.leafOf(w.bob)}, Type: roster.ContentCommit,
		Commit: &roster.Commit{Proposals: []roster.ProposalOrRef{{Proposal: &roster.Proposal{Type: roster.ProposalPSK,
			PSK: roster.PreSharedKeyID{Type: roster.PSKExternal, ID: []byte("only mine"), Nonce: make([]byte, 32)}}}}},
	}}
	if err := a.Sign(public.Suite(), w.bob.key, public.Context()); err != nil {
		t.Fatal(err)
	}
	msg := roster.Marshal(&roster.Message{WireFormat: roster.WirePublicMessage, Public: &roster.PublicMessage{AuthenticatedContent: a, MembershipTag: make([]byte, 32)}})
	change, err := public.Stage(msg, testNow)
	if err != nil {
		t.Fatal(err)
	}
	_, err = grant.Judge(change, w.trust())
	refused(t, err, chat.Forbidden, "no pre-shared key")
}

// TestKeysStay: a device is known by its key, so a commit or an Update that exchanges it is refused.
func TestKeysStay(t *testing.T) {
	w := newWorld(t)
	p := must(w.bob.group.Commit(mls.CommitOptions{}))
	defer p.Discard()
	change := *p.Change()
	if len(change.Updated) != 1 {
		t.Fatalf("%d leaves updated", len(change.Updated))
	}
	change.Updated = slices.Clone(change.Updated)
	change.Updated[0].After.SignatureKey = []byte(public(key("mallory")))
	_, err := grant.Judge(&change, w.trust())
	refused(t, err, chat.Forbidden, "signature key")
}

func TestJudgeFounding(t *testing.T) {
	w := newWorld(t)
	alice := device("alice", 1)
	shared, private := grant.NewThread(testHost, testPartner), grant.NewThread(testHost, "")
	entry := w.admit(w.alicePhone, 1, chat.Send)
	agent := &member{name: []byte(chat.AgentURI(testHost, testPartner, entry.Grant)), key: key("grant " + entry.Grant.String())}
	stranger := &member{name: []byte(chat.DeviceURI("other.example", "alice", chat.DeviceID{1})), key: alice.key}
	nobody := &member{name: []byte("alice"), key: alice.key}
	good := w.extensions(shared)
	for _, c := range []struct {
		name string
		by   *member
		x    roster.Extensions
		kind chat.Kind
		says string
	}{
		{"shared", alice, good, "", ""},
		{"private", alice, w.extensions(private), "", ""},
		{"no extension", alice, good[:2], chat.Invalid, "lacks the letterlock extension"},
		{"another host", alice, w.extensions(grant.NewThread("other.example", testPartner)), chat.Invalid, "on this server"},
		{"with a grant", alice, w.extensions(shared.With(entry)), chat.Invalid, "without grants"},
		{"by an agent", agent, good, chat.Forbidden, "without a grant to read"},
		{"by an agent, with its entry", agent, w.extensions(shared.With(entry)), chat.Invalid, "without grants"},
		{"by a stranger", stranger, good, chat.Forbidden, "of another host"},
		{"by nobody", nobody, good, chat.Invalid, "neither a device nor an agent"},
		{"without the server", alice, roster.Extensions{good[0], good[2]}, chat.Invalid, "this server alone"},
		{"with another server", alice, replace(good, w.senders(key("mallory"))), chat.Invalid, "this server alone"},
		{"with another beside the server", alice, replace(good, w.senders(w.operator, key("mallory"))), chat.Invalid, "this server alone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := roster.Open(must(w.createWith(c.by, c.x).GroupInfo()), testNow)
			if err != nil {
				t.Fatal(err)
			}
			thread, err := grant.JudgeFounding(g, w.trust())
			if c.kind != "" {
				refused(t, err, c.kind, c.says)
			} else if err != nil || thread.Host != testHost {
				t.Errorf("%+v %v", thread, err)
			}
		})
	}
	_, err := grant.JudgeFounding(newWorld(t).bob.group.Roster(), w.trust())
	refused(t, err, chat.Invalid, "at epoch 0 with its founder alone")
}

func TestJudgeJoin(t *testing.T) {
	w, _, _ := standing(t)
	if thread, err := grant.JudgeJoin(w.bob.group.Roster(), w.trust()); err != nil || len(thread.Grants) != 2 {
		t.Fatalf("%+v %v", thread, err)
	}
	trust := w.trust()
	trust.Host = "other.example"
	_, err := grant.JudgeJoin(w.bob.group.Roster(), trust)
	refused(t, err, chat.Invalid, "of another server")
	trust = w.trust()
	trust.Operator = ed25519.PublicKey(make([]byte, 32))
	_, err = grant.JudgeJoin(w.bob.group.Roster(), trust)
	refused(t, err, chat.Invalid, "this server alone")

	// Whoever founds a group with software of its own can put anything into it; whoever is invited looks.
	for _, c := range []struct {
		name    string
		partner string
		spoil   func(w *world) mls.CommitOptions
		kind    chat.Kind
		says    string
	}{
		{"a reader without an entry", testPartner, func(w *world) mls.CommitOptions {
			d := w.draft(w.alicePhone, 1, chat.Read)
			d.thread = func(t grant.Thread, _ grant.Entry) grant.Thread { return t }
			return d.options()
		}, chat.Forbidden, "without a grant to read"},
		{"an entry without its reader", testPartner, func(w *world) mls.CommitOptions {
			d := w.draft(w.alicePhone, 1, chat.Read)
			d.noLeaf = true
			return d.options()
		}, chat.Invalid, "without its leaf"},
		{"a reader in a private conversation", "", func(w *world) mls.CommitOptions {
			o := w.draft(w.alicePhone, 1, chat.Read).options()
			o.Extensions = nil
			return o
		}, chat.Forbidden, "without a grant to read"},
		{"no extension", testPartner, func(w *world) mls.CommitOptions {
			x := w.alicePhone.group.Roster().Extensions()[:2]
			return mls.CommitOptions{Extensions: &x}
		}, chat.Invalid, "lacks the letterlock extension"},
		{"a member of another host", testPartner, func(w *world) mls.CommitOptions {
			return mls.CommitOptions{Add: [][]byte{w.keyPackage([]byte(chat.DeviceURI("other.example", "carol", chat.DeviceID{1})), key("carol")).Public}}
		}, chat.Forbidden, "of another host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorldOf(t, c.partner)
			w.merge(w.alicePhone, c.spoil(w))
			_, err := grant.JudgeJoin(w.bob.group.Roster(), w.trust())
			refused(t, err, c.kind, c.says)
		})
	}
}
