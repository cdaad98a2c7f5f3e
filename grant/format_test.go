package grant_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
)

func grantNow() grant.Grant {
	return grant.Grant{ID: chat.GrantID{1}, Account: chat.AccountID{2}, Handle: "alice", Partner: testPartner, Agreement: grant.Hash{3}, Actions: chat.AllActions,
		Conversation: chat.ConversationID{4}, AgentKey: [32]byte{5}, ChainVersion: 6, SlotSigners: [][32]byte{{8}, {7}, {8}}, Issued: nowMS, Expiry: nowMS + 1,
		Counter: 9, Previous: grant.Hash{10}, Device: chat.DeviceID{11}}
}

func revocationNow() grant.Revocation {
	return grant.Revocation{Grant: chat.GrantID{1}, Account: chat.AccountID{2}, Handle: "alice", Partner: testPartner, Conversation: chat.ConversationID{4},
		Counter: 9, At: nowMS, Device: chat.DeviceID{11}}
}

func narrowingNow() grant.Narrowing {
	return grant.Narrowing{Grant: chat.GrantID{1}, Account: chat.AccountID{2}, Handle: "alice", Partner: testPartner, Conversation: chat.ConversationID{4},
		Actions: chat.Send, Counter: 9, At: nowMS, Device: chat.DeviceID{11}}
}

func certNow() grant.Cert {
	return grant.Cert{Version: 1, Partner: testPartner, Purpose: grant.GrantPurpose, Grant: chat.GrantID{1}, Key: [32]byte{5}, NotBefore: nowMS, NotAfter: nowMS + 1}
}

// opener reads one kind of signed structure; only the error counts.
type opener struct {
	name   string
	domain string // under which it is signed
	open   func([]byte, ed25519.PublicKey) error
	peek   func([]byte) error
}

var openers = []opener{
	{"grant", "letterlock/grant/v1",
		func(b []byte, k ed25519.PublicKey) error { _, err := grant.Open(b, k); return err },
		func(b []byte) error { _, err := grant.Peek(b); return err }},
	{"revocation", "letterlock/revoke/v1",
		func(b []byte, k ed25519.PublicKey) error { _, err := grant.OpenRevocation(b, k); return err },
		func(b []byte) error { _, err := grant.PeekRevocation(b); return err }},
	{"narrowing", "letterlock/narrow/v1",
		func(b []byte, k ed25519.PublicKey) error { _, err := grant.OpenNarrowing(b, k); return err },
		func(b []byte) error { _, err := grant.PeekNarrowing(b); return err }},
	{"certificate", "letterlock/agent-cert/v1",
		func(b []byte, k ed25519.PublicKey) error { _, err := grant.OpenCert(b, k); return err }, nil},
}

// TestSignedRoundTrip: what is signed opens as it was, under the domain that the format names.
func TestSignedRoundTrip(t *testing.T) {
	k := key("alice")
	g := grantNow()
	signed := must(g.Sign(k))
	if want := [][32]byte{{7}, {8}}; !slices.Equal(g.SlotSigners, want) {
		t.Errorf("slot signers %v, not sorted and distinct", g.SlotSigners)
	}
	back, err := grant.Open(signed, public(k))
	if err != nil || !reflect.DeepEqual(*back, g) {
		t.Errorf("grant: %+v %v", back, err)
	}
	if e := g.Entry(signed); e != (grant.Entry{Grant: g.ID, Hash: grant.HashOf(signed), Account: g.Account, Handle: g.Handle, Actions: g.Actions,
		AgentKey: g.AgentKey, Expiry: g.Expiry}) {
		t.Errorf("entry %+v", e)
	}
	if grant.HashOf(signed) != grant.Hash(canon.Hash("letterlock/grant/v1", signed)) {
		t.Error("the hash of a grant is not the format's")
	}
	r := revocationNow()
	if back, err := grant.OpenRevocation(must(r.Sign(k)), public(k)); err != nil || *back != r || r.Version != 1 {
		t.Errorf("revocation: %+v %v", back, err)
	}
	n := narrowingNow()
	if back, err := grant.OpenNarrowing(must(n.Sign(k)), public(k)); err != nil || *back != n || n.Version != 1 {
		t.Errorf("narrowing: %+v %v", back, err)
	}
	c := certNow()
	if back, err := grant.OpenCert(must(grant.Certify(k, c)), public(k)); err != nil || *back != c {
		t.Errorf("certificate: %+v %v", back, err)
	}
	for i, o := range openers {
		v := []any{g, r, n, c}[i]
		if err := o.open(must(canon.Seal(k, o.domain, v)), public(k)); err != nil {
			t.Errorf("%s under %s: %v", o.name, o.domain, err)
		}
	}
}

// TestNothingElseOpens: not under another key, not under another purpose, not as something else, not a byte different, not a byte short.
func TestNothingElseOpens(t *testing.T) {
	k := key("alice")
	g, r, n := grantNow(), revocationNow(), narrowingNow()
	signed := [][]byte{must(g.Sign(k)), must(r.Sign(k)), must(n.Sign(k)), must(grant.Certify(k, certNow()))}
	domains := []string{"letterlock/agreement/v1", "letterlock/agreement-operator/v1", "letterlock/slot/v1", "letterlock/post/v1", "letterlock/grant/v2", ""}
	for _, o := range openers {
		domains = append(domains, o.domain)
	}
	for i, o := range openers {
		for j, data := range signed {
			if err := o.open(data, public(k)); (err == nil) != (i == j) {
				t.Errorf("a %s opened as a %s: %v", openers[j].name, o.name, err)
			}
		}
		body := []any{&g, &r, &n, certNow()}[i]
		for _, d := range domains {
			if err := o.open(must(canon.Seal(k, d, body)), public(k)); (err == nil) != (d == o.domain) {
				t.Errorf("a %s signed under %q: %v", o.name, d, err)
			}
		}
		data := signed[i]
		if o.open(data, public(key("bob"))) == nil || o.open(data, nil) == nil {
			t.Errorf("a %s opened under another key", o.name)
		}
		for at := range data {
			bad := bytes.Clone(data)
			bad[at] ^= 1 << (at % 8)
			if o.open(bad, public(k)) == nil {
				t.Fatalf("%s: byte %d changed, and it opened", o.name, at)
			}
			if o.open(data[:at], public(k)) == nil || o.peek != nil && o.peek(data[:at]) == nil {
				t.Fatalf("%s: the first %d bytes opened", o.name, at)
			}
		}
		for _, err := range []error{o.open(append(bytes.Clone(data), 0), public(k)), o.open(nil, public(k))} {
			refused(t, err, chat.Invalid, "")
		}
		huge := make([]byte, grant.MaxSigned+1)
		refused(t, o.open(huge, public(k)), chat.TooLarge, "larger than")
		if o.peek != nil {
			refused(t, o.peek(huge), chat.TooLarge, "larger than")
			if err := o.peek(data); err != nil {
				t.Errorf("peek at a %s: %v", o.name, err)
			}
		}
	}
}

// TestFieldsOfSigned: each limit, at signing and again at opening what somebody else signed.
func TestFieldsOfSigned(t *testing.T) {
	k := key("alice")
	long := strings.Repeat("a", 33)
	for name, spoil := range map[string]func(*grant.Grant){
		"no id":                       func(g *grant.Grant) { g.ID = chat.GrantID{} },
		"no account":                  func(g *grant.Grant) { g.Account = chat.AccountID{} },
		"no conversation":             func(g *grant.Grant) { g.Conversation = chat.ConversationID{} },
		"no handle":                   func(g *grant.Grant) { g.Handle = "" },
		"a long handle":               func(g *grant.Grant) { g.Handle = long },
		"no partner":                  func(g *grant.Grant) { g.Partner = "" },
		"a partner that is a path":    func(g *grant.Grant) { g.Partner = "flimmer/x" },
		"no actions":                  func(g *grant.Grant) { g.Actions = 0 },
		"an unknown action":           func(g *grant.Grant) { g.Actions = 8 | chat.Send },
		"not issued":                  func(g *grant.Grant) { g.Issued = 0 },
		"issued before time began":    func(g *grant.Grant) { g.Issued = -1 },
		"expired when it was issued":  func(g *grant.Grant) { g.Expiry = g.Issued },
		"expired before it was":       func(g *grant.Grant) { g.Expiry = g.Issued - 1 },
		"nobody announces its slot":   func(g *grant.Grant) { g.SlotSigners = nil },
		"too many announce its slots": func(g *grant.Grant) { g.SlotSigners = signers(grant.MaxSigners + 1) },
	} {
		g := grantNow()
		spoil(&g)
		if _, err := g.Sign(k); !chat.Is(err, chat.Invalid) {
			t.Errorf("grant, %s: signed: %v", name, err)
		}
		g.Version = 1
		if _, err := grant.Open(must(canon.Seal(k, "letterlock/grant/v1", g)), public(k)); !chat.Is(err, chat.Invalid) {
			t.Errorf("grant, %s: opened: %v", name, err)
		}
		if _, err := grant.Peek(must(canon.Seal(k, "letterlock/grant/v1", g))); !chat.Is(err, chat.Invalid) {
			t.Errorf("grant, %s: peeked: %v", name, err)
		}
	}
	for name, list := range map[string][][32]byte{"not sorted": {{2}, {1}}, "twice": {{1}, {1}}} { // Sign sorts
		g := grantNow()
		g.Version, g.SlotSigners = 1, list
		_, err := grant.Open(must(canon.Seal(k, "letterlock/grant/v1", g)), public(k))
		t.Run("slot signers "+name, func(t *testing.T) { refused(t, err, chat.Invalid, "not sorted or repeat") })
	}
	most := grantNow()
	most.Handle, most.Partner, most.SlotSigners = long[:32], long[:32], signers(grant.MaxSigners)
	if signed, err := most.Sign(k); err != nil || len(signed) > grant.MaxSigned {
		t.Errorf("the largest grant has %d bytes: %v", len(signed), err)
	}

	for name, spoil := range map[string]func(*grant.Revocation){
		"no grant":        func(r *grant.Revocation) { r.Grant = chat.GrantID{} },
		"no account":      func(r *grant.Revocation) { r.Account = chat.AccountID{} },
		"no conversation": func(r *grant.Revocation) { r.Conversation = chat.ConversationID{} },
		"no time":         func(r *grant.Revocation) { r.At = 0 },
		"no handle":       func(r *grant.Revocation) { r.Handle = "" },
		"no partner":      func(r *grant.Revocation) { r.Partner = "" },
	} {
		r := revocationNow()
		spoil(&r)
		if _, err := r.Sign(k); !chat.Is(err, chat.Invalid) {
			t.Errorf("revocation, %s: signed: %v", name, err)
		}
		r.Version = 1
		if _, err := grant.OpenRevocation(must(canon.Seal(k, "letterlock/revoke/v1", r)), public(k)); !chat.Is(err, chat.Invalid) {
			t.Errorf("revocation, %s: opened: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(*grant.Narrowing){
		"no grant":          func(n *grant.Narrowing) { n.Grant = chat.GrantID{} },
		"no account":        func(n *grant.Narrowing) { n.Account = chat.AccountID{} },
		"no conversation":   func(n *grant.Narrowing) { n.Conversation = chat.ConversationID{} },
		"no time":           func(n *grant.Narrowing) { n.At = 0 },
		"no handle":         func(n *grant.Narrowing) { n.Handle = "" },
		"no partner":        func(n *grant.Narrowing) { n.Partner = "" },
		"nothing left":      func(n *grant.Narrowing) { n.Actions = 0 },
		"an unknown action": func(n *grant.Narrowing) { n.Actions = 8 },
	} {
		n := narrowingNow()
		spoil(&n)
		if _, err := n.Sign(k); !chat.Is(err, chat.Invalid) {
			t.Errorf("narrowing, %s: signed: %v", name, err)
		}
		n.Version = 1
		if _, err := grant.OpenNarrowing(must(canon.Seal(k, "letterlock/narrow/v1", n)), public(k)); !chat.Is(err, chat.Invalid) {
			t.Errorf("narrowing, %s: opened: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(*grant.Cert){
		"another version":          func(c *grant.Cert) { c.Version = 2 },
		"no partner":               func(c *grant.Cert) { c.Partner = "" },
		"it ends before it begins": func(c *grant.Cert) { c.NotAfter = c.NotBefore },
	} {
		c := certNow()
		spoil(&c)
		if _, err := grant.OpenCert(must(canon.Seal(k, "letterlock/agent-cert/v1", c)), public(k)); !chat.Is(err, chat.Invalid) {
			t.Errorf("certificate, %s: opened: %v", name, err)
		}
	}

	// Another version is not called broken.
	g, r, n := grantNow(), revocationNow(), narrowingNow()
	g.Version, r.Version, n.Version = 2, 2, 2
	for i, v := range []any{g, r, n} {
		if err := openers[i].open(must(canon.Seal(k, openers[i].domain, v)), public(k)); !chat.Is(err, chat.Incompatible) {
			t.Errorf("%s of version 2: %v", openers[i].name, err)
		}
	}
}

func signers(n int) (list [][32]byte) {
	for i := range n {
		list = append(list, [32]byte{byte(i >> 8), byte(i)})
	}
	return list
}

// TestCheckCertsAtTheEdges: valid from the first moment on, up to and without the last.
func TestCheckCertsAtTheEdges(t *testing.T) {
	root, agent := key("root"), key("agent")
	a, g := certNow(), certNow()
	a.Purpose, a.Grant, a.Key = grant.AgentPurpose, chat.GrantID{}, public32(agent)
	certs := canon.MustMarshal(grant.Certs{Agent: must(grant.Certify(root, a)), Grant: must(grant.Certify(agent, g))})
	got, err := grant.CheckCerts(certs, public(root), testPartner, g.Grant, nowMS)
	if err != nil || !bytes.Equal(got, g.Key[:]) {
		t.Errorf("%x %v", got, err)
	}
	for _, at := range []int64{nowMS - 1, nowMS + 1} {
		_, err := grant.CheckCerts(certs, public(root), testPartner, g.Grant, at)
		refused(t, err, chat.Expired, "not valid then")
	}
	for i := range certs {
		bad := bytes.Clone(certs)
		bad[i] ^= 1 << (i % 8)
		if _, err := grant.CheckCerts(bad, public(root), testPartner, g.Grant, nowMS); err == nil {
			t.Fatalf("byte %d changed, and the certificates held", i)
		}
	}
}

func TestAgreementRoundTrip(t *testing.T) {
	root, operator := key("root"), key("operator")
	a := agreementNow()
	offer := must(a.Offer(root))
	if a.RootKey != public32(root) || a.Version != 1 {
		t.Error("the offer does not name the key that signed it")
	}
	open, err := grant.OpenOffer(offer)
	if err != nil || !reflect.DeepEqual(*open, a) {
		t.Errorf("%+v %v", open, err)
	}
	_, err = grant.OpenAgreement(offer, public(operator))
	refused(t, err, chat.Invalid, "not signed by this server's operator")
	signed := must(grant.Countersign(offer, operator))
	if open, err = grant.OpenAgreement(signed, public(operator)); err != nil || !reflect.DeepEqual(*open, a) {
		t.Errorf("%+v %v", open, err)
	}
	if grant.AgreementHash(signed) != grant.Hash(canon.Hash("letterlock/agreement/v1", signed)) || grant.AgreementHash(signed) == grant.AgreementHash(offer) {
		t.Error("the hash is not of the agreement with both signatures")
	}
	_, err = grant.OpenAgreement(signed, public(root))
	refused(t, err, chat.Invalid, "not signed by this server's operator")
	for i := range signed {
		bad := bytes.Clone(signed)
		bad[i] ^= 1 << (i % 8)
		if _, err := grant.OpenAgreement(bad, public(operator)); err == nil {
			t.Fatalf("byte %d changed, and the agreement opened", i)
		}
		if _, err := grant.OpenAgreement(signed[:i], public(operator)); err == nil {
			t.Fatalf("the first %d bytes opened", i)
		}
	}
	for _, data := range [][]byte{nil, append(bytes.Clone(signed), 0)} {
		_, err = grant.OpenOffer(data)
		refused(t, err, chat.Invalid, "cannot be read")
		_, err = grant.Countersign(data, operator)
		refused(t, err, chat.Invalid, "cannot be read")
	}
	_, err = grant.OpenOffer(make([]byte, grant.MaxAgreement+1))
	refused(t, err, chat.TooLarge, "larger than")

	// One key in both roles, and yet one signature does not stand for the other.
	var c grant.Countersigned
	if err := canon.Unmarshal(must(grant.Countersign(offer, root)), &c); err != nil {
		t.Fatal(err)
	}
	c.Operator = c.Partner
	_, err = grant.OpenAgreement(canon.MustMarshal(c), public(root))
	refused(t, err, chat.Invalid, "not signed by this server's operator")
}

func TestFieldsOfAgreement(t *testing.T) {
	root := key("root")
	many := make([]string, 65)
	for i := range many {
		many[i] = string(rune('A'+i/26)) + string(rune('a'+i%26))
	}
	bases := slices.Repeat([]string{"https://flimmer.example"}, 65)
	for name, spoil := range map[string]func(*grant.Agreement){
		"no host":                    func(a *grant.Agreement) { a.Host = "" },
		"a host in capitals":         func(a *grant.Agreement) { a.Host = "Chat.example" },
		"no partner":                 func(a *grant.Agreement) { a.Partner = "" },
		"no name":                    func(a *grant.Agreement) { a.Name = "" },
		"a long name":                func(a *grant.Agreement) { a.Name = strings.Repeat("a", 65) },
		"a name with a newline":      func(a *grant.Agreement) { a.Name = "Flim\nmer" },
		"a name that turns around":   func(a *grant.Agreement) { a.Name = "Flim\u202emer" },
		"a name with a zero width":   func(a *grant.Agreement) { a.Name = "Flim\u200bmer" },
		"a name between spaces":      func(a *grant.Agreement) { a.Name = " Flimmer" },
		"no actions":                 func(a *grant.Agreement) { a.Actions = 0 },
		"an unknown action":          func(a *grant.Agreement) { a.Actions = 0xff },
		"it begins at no time":       func(a *grant.Agreement) { a.NotBefore = 0 },
		"it ends before it begins":   func(a *grant.Agreement) { a.NotAfter = a.NotBefore },
		"a report every two years":   func(a *grant.Agreement) { a.ReportDays = 367 },
		"no post at all":             func(a *grant.Agreement) { a.PostsPerMinute = 0 },
		"more posts than anyone":     func(a *grant.Agreement) { a.PostsPerMinute = 1_000_001 },
		"an empty label":             func(a *grant.Agreement) { a.Interfaces = []string{""} },
		"a long label":               func(a *grant.Agreement) { a.Surfaces = []string{strings.Repeat("a", 65)} },
		"a label with a bell":        func(a *grant.Agreement) { a.Variants = []string{"\a"} },
		"a label twice":              func(a *grant.Agreement) { a.Interfaces = []string{"web", "tv", "web"} },
		"too many interfaces":        func(a *grant.Agreement) { a.Interfaces = many },
		"too many surfaces":          func(a *grant.Agreement) { a.Surfaces = many },
		"too many variants":          func(a *grant.Agreement) { a.Variants = many },
		"too many link bases":        func(a *grant.Agreement) { a.LinkBases = bases },
		"an empty link base":         func(a *grant.Agreement) { a.LinkBases = []string{""} },
		"a link base without a host": func(a *grant.Agreement) { a.LinkBases = []string{"https:///watch"} },
		"a link base that runs":      func(a *grant.Agreement) { a.LinkBases = []string{"javascript://x/%0aalert(1)"} },
		"a link base with a query":   func(a *grant.Agreement) { a.LinkBases = []string{"https://flimmer.example/?a=b"} },
		"a link base with fragment":  func(a *grant.Agreement) { a.LinkBases = []string{"https://flimmer.example/#a"} },
		"a link base with a user":    func(a *grant.Agreement) { a.LinkBases = []string{"https://alice@flimmer.example/"} },
		"a long link base": func(a *grant.Agreement) {
			a.LinkBases = []string{"https://flimmer.example/" + strings.Repeat("a", 512)}
		},
		"a link base that is none": func(a *grant.Agreement) { a.LinkBases = []string{"https://%zz"} },
	} {
		a := agreementNow()
		spoil(&a)
		if _, err := a.Offer(root); !chat.Is(err, chat.Invalid) {
			t.Errorf("%s: offered: %v", name, err)
		}
		a.Version, a.RootKey = 1, public32(root)
		body := canon.MustMarshal(a)
		data := canon.MustMarshal(grant.Countersigned{Body: body, Partner: canon.Sign(root, "letterlock/agreement/v1", body)})
		if _, err := grant.OpenOffer(data); !chat.Is(err, chat.Invalid) {
			t.Errorf("%s: opened: %v", name, err)
		}
	}
	a := agreementNow()
	a.Version, a.RootKey = 2, public32(root)
	body := canon.MustMarshal(a)
	_, err := grant.OpenOffer(canon.MustMarshal(grant.Countersigned{Body: body, Partner: canon.Sign(root, "letterlock/agreement/v1", body)}))
	refused(t, err, chat.Incompatible, "version 2")
}

func TestThreadRoundTrip(t *testing.T) {
	entry := func(n byte) grant.Entry {
		return grant.Entry{Grant: chat.GrantID{n}, Hash: grant.Hash{n}, Account: chat.AccountID{n}, Handle: "alice", Actions: chat.Send, AgentKey: [32]byte{n}, Expiry: int64(n)}
	}
	thread := grant.NewThread(testHost, testPartner)
	for _, n := range []byte{3, 1, 2, 1, 3} { // With keeps the order, and one entry of an id
		e := entry(n)
		thread = thread.With(e)
	}
	if len(thread.Grants) != 3 || thread.Grants[0] != entry(1) || thread.Grants[2] != entry(3) {
		t.Fatalf("entries %v", thread.Grants)
	}
	back, err := grant.OpenThread(thread.Marshal())
	if err != nil || !reflect.DeepEqual(back, thread) {
		t.Errorf("%+v %v", back, err)
	}
	without := thread.Without(chat.GrantID{2})
	if _, in := without.Find(chat.GrantID{2}); in || len(without.Grants) != 2 || len(thread.Grants) != 3 {
		t.Error("Without removed another, or changed the thread itself")
	}
	before := slices.Clone(without.Grants)
	without.With(entry(2))
	if !slices.Equal(before, without.Grants) {
		t.Error("With changed the thread itself")
	}
	if e, in := thread.Find(chat.GrantID{2}); !in || e != entry(2) {
		t.Error("Find did not")
	}
	private := grant.NewThread(testHost, "")
	if back, err := grant.OpenThread(private.Marshal()); err != nil || back.Kind != grant.Private {
		t.Errorf("%+v %v", back, err)
	}
	full := grant.NewThread(testHost, testPartner)
	for n := range byte(grant.MaxGrants) {
		full = full.With(entry(n + 1))
	}
	if _, err := grant.OpenThread(full.Marshal()); err != nil {
		t.Errorf("%d grants: %v", grant.MaxGrants, err)
	}
	spoiled := func(spoil func(*grant.Entry)) grant.Thread {
		e := entry(1)
		spoil(&e)
		return grant.NewThread(testHost, testPartner).With(e)
	}
	for name, c := range map[string]struct {
		t    grant.Thread
		kind chat.Kind
	}{
		"too many grants":            {full.With(entry(99)), chat.Invalid},
		"no host":                    {grant.NewThread("", testPartner), chat.Invalid},
		"a partner that is no id":    {grant.NewThread(testHost, "Flimmer"), chat.Invalid},
		"grants in another order":    {grant.Thread{Version: 1, Kind: 1, Host: testHost, Partner: testPartner, Grants: []grant.Entry{entry(2), entry(1)}}, chat.Invalid},
		"a grant twice":              {grant.Thread{Version: 1, Kind: 1, Host: testHost, Partner: testPartner, Grants: []grant.Entry{entry(1), entry(1)}}, chat.Invalid},
		"private, with a partner":    {grant.Thread{Version: 1, Host: testHost, Partner: testPartner}, chat.Forbidden},
		"private, with a grant":      {grant.Thread{Version: 1, Host: testHost, Grants: []grant.Entry{entry(1)}}, chat.Forbidden},
		"shared, without a partner":  {grant.Thread{Version: 1, Kind: 1, Host: testHost}, chat.Invalid},
		"an unknown kind":            {grant.Thread{Version: 1, Kind: 2, Host: testHost, Partner: testPartner}, chat.Invalid},
		"an unknown version":         {grant.Thread{Version: 2, Kind: 1, Host: testHost, Partner: testPartner}, chat.Incompatible},
		"an entry without actions":   {spoiled(func(e *grant.Entry) { e.Actions = 0 }), chat.Invalid},
		"an entry of unknown action": {spoiled(func(e *grant.Entry) { e.Actions = 8 }), chat.Invalid},
		"an entry without account":   {spoiled(func(e *grant.Entry) { e.Account = chat.AccountID{} }), chat.Invalid},
		"an entry without handle":    {spoiled(func(e *grant.Entry) { e.Handle = "" }), chat.Invalid},
	} {
		_, err := grant.OpenThread(c.t.Marshal())
		t.Run(name, func(t *testing.T) { refused(t, err, c.kind, "") })
	}
}

func TestCovers(t *testing.T) {
	a := agreementNow()
	g := grantNow()
	if err := a.Covers(&g); err != nil {
		t.Fatal(err)
	}
	g.Issued, g.Expiry = a.NotBefore, a.NotAfter
	if err := a.Covers(&g); err != nil {
		t.Errorf("as long as the agreement: %v", err)
	}
	for _, c := range []struct {
		spoil func(*grant.Grant)
		kind  chat.Kind
	}{
		{func(g *grant.Grant) { g.Partner = "other" }, chat.Invalid},
		{func(g *grant.Grant) { g.Issued = a.NotBefore - 1 }, chat.Expired},
		{func(g *grant.Grant) { g.Issued = a.NotAfter }, chat.Expired},
		{func(g *grant.Grant) { g.Expiry = a.NotAfter + 1 }, chat.Invalid},
	} {
		g := grantNow()
		c.spoil(&g)
		refused(t, a.Covers(&g), c.kind, "")
	}
	a.Actions = chat.Send
	refused(t, a.Covers(&g), chat.Forbidden, "allows send only")
}

// TestErrorsKeepTheirCause: the person reads a sentence, the operator finds what lies under it.
func TestErrorsKeepTheirCause(t *testing.T) {
	_, err := grant.Open([]byte{0}, nil)
	if !errors.Is(err, canon.ErrNotCanonical) {
		t.Errorf("not canonical: %v", err)
	}
	g := grantNow()
	_, err = grant.Open(must(g.Sign(key("alice"))), public(key("bob")))
	if !errors.Is(err, canon.ErrSignature) {
		t.Errorf("not signed: %v", err)
	}
}
