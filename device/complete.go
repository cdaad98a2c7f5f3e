package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/proof"
)

// The completeness check: that the ledger holds nothing about this person that the device was not shown. It reads the public entries, which
// the map numbers without gaps, and so knows every partner; and for each partner the map shows that neither of the person's two
// chains goes on after the last record that the device knows.
//
// What is remembered: how many public entries were read and which partners they name; for each chain its length and last leaf hash
// (chainHead); records that the ledger did not hold yet when they were seen.

const (
	checkEvery = 24 * time.Hour
	logDelay   = 5 * time.Minute // a record that is not in a ledger that is later by so much is being kept out
)

// registry is what was read of the public entries.
type registry struct {
	_        struct{} `cbor:",toarray"`
	Next     uint64   // the first public entry that was not read
	Partners []string // that ever had an agreement, sorted
}

// unlogged is a record that the ledger did not hold when it was seen.
type unlogged struct {
	_       struct{} `cbor:",toarray"`
	Partner string
	Chain   proof.Chain
	N       uint64
	Leaf    proof.Hash
	Since   int64 // ms, by this device's clock
}

// CheckLine says what one part of a check found.
type CheckLine struct {
	What     string `json:"what"` // ledger, registry, history or keys
	OK       bool   `json:"ok"`
	Sentence string `json:"sentence"`
}

// Report is what a check found.
type Report struct {
	At    int64       `json:"at"`
	OK    bool        `json:"ok"`
	Lines []CheckLine `json:"lines"`

	doing string // what the next line is about
}

func (r *Report) add(what, format string, args ...any) {
	r.Lines = append(r.Lines, CheckLine{What: what, OK: true, Sentence: fmt.Sprintf(format, args...)})
}

// Check makes the completeness check now. The report says what was found up to the first failure, which is the error too.
func (c *Client) Check(ctx context.Context) (*Report, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.check(ctx)
}

// Warning is why the daily check could not be made; nil if it was, or was not due.
func (c *Client) Warning() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.warning
}

// checkDaily makes the check if the last one is a day ago. A lie is an error. What only keeps the check from being made (a server that does
// not answer, witnesses that are away) is a warning, until the check was made: people's conversations go on.
func (c *Client) checkDaily(ctx context.Context) error {
	var last int64
	err := c.state.View(func(tx StateTx) error { _, err := load(tx, bucketLedger, "checked", &last); return err })
	if err != nil || c.ms()-last < checkEvery.Milliseconds() {
		return err
	}
	_, err = c.check(ctx)
	if err != nil && !chat.Is(err, chat.Tampered) && ctx.Err() == nil {
		c.warning = err
		return nil
	}
	return err
}

func (c *Client) check(ctx context.Context) (*Report, error) {
	r := &Report{At: c.ms(), Lines: []CheckLine{}, doing: "ledger"}
	err := c.checkAll(ctx, r)
	if err != nil {
		r.Lines = append(r.Lines, CheckLine{What: r.doing, Sentence: err.Error()})
		return r, err
	}
	r.OK, c.warning = true, nil
	return r, c.state.Update(func(tx StateTx) error { return save(tx, bucketLedger, "checked", r.At) })
}

func (c *Client) checkAll(ctx context.Context, r *Report) error {
	if err := c.greet(ctx); err != nil {
		return err
	}
	reg, m, err := c.readRegistry(ctx)
	if err != nil {
		return err
	}
	c.tellLedger(r, m)
	if m.Public == 0 {
		r.add("registry", "The ledger has no public entries yet: no partner ever had an agreement.")
	} else {
		r.add("registry", "No public entry is missing, of %d in all; %s ever had an agreement.", m.Public, plural(uint64(len(reg.Partners)), "partner", "partners"))
	}
	r.doing = "history"
	records, err := c.checkChains(ctx, reg.Partners)
	if err != nil {
		return err
	}
	r.add("history", "Your history is complete: %s with %s, and the ledger holds none besides.", plural(records, "record", "records"),
		plural(uint64(len(reg.Partners)), "partner", "partners"))
	waiting, err := c.checkUnlogged(ctx, m)
	if err != nil {
		return err
	}
	if waiting > 0 {
		r.add("history", "%s not in the ledger yet, and will be looked for again.", plural(uint64(waiting), "record is", "records are"))
	}
	r.doing = "keys"
	chain, err := c.checkOwnKeys(ctx)
	if err != nil {
		return err
	}
	r.add("keys", "Everybody is shown the keys that you see: %s, all from entries of your own.", plural(uint64(len(chain.Devices())), "device", "devices"))
	return nil
}

func (c *Client) tellLedger(r *Report, m proof.Map) {
	at, _ := c.quorumTime(m)
	by := "by the server's word: no witness is asked for"
	if p := c.policy.witnesses; p != nil && p.NeedsQuorum() {
		_, signed, _ := p.Check(m.Checkpoint.Signed)
		by = "cosigned by " + listNames(witnessNames(signed, c.self.Host))
	}
	r.add("ledger", "The ledger continues the one that this device remembers: %d entries, of %s (%s).", m.Checkpoint.Size,
		time.UnixMilli(at).UTC().Format("2 January 2006 15:04:05 UTC"), by)
}

func witnessNames(signed []proof.Cosignature, host string) (names []string) {
	for _, s := range signed {
		name := s.Witness.KeyName()
		if proof.OperatorRun(name, host) {
			name += " (not independent)"
		}
		names = append(names, name)
	}
	return names
}

// readRegistry reads the public entries that are new, up to the newest map root, whose count leaves none out.
func (c *Client) readRegistry(ctx context.Context) (reg registry, m proof.Map, err error) {
	err = c.state.View(func(tx StateTx) error { _, err := load(tx, bucketLedger, "registry", &reg); return err })
	if err != nil {
		return reg, m, err
	}
	for {
		page, err := c.server.PublicEntries(ctx, reg.Next)
		if err != nil {
			return reg, m, err
		}
		if m, err = c.head(ctx, page.Head); err != nil {
			return reg, m, err
		}
		for _, e := range page.Entries {
			if err := c.readPublic(&reg, m, e); err != nil {
				return reg, m, c.alarm(chat.ConversationID{}, chat.Wrap(chat.Tampered, err, "public entry %d of the ledger does not hold", reg.Next), e.Leaf)
			}
		}
		if reg.Next < m.Public && len(page.Entries) == 0 {
			return reg, m, c.alarm(chat.ConversationID{}, chat.Errorf(chat.Tampered, "the server leaves out public entry %d of the ledger, which says that it has %d", reg.Next, m.Public), page.Head)
		}
		if len(page.Entries) > 0 {
			if err := c.state.Update(func(tx StateTx) error { return save(tx, bucketLedger, "registry", reg) }); err != nil {
				return reg, m, err
			}
		}
		if reg.Next >= m.Public {
			return reg, m, nil
		}
	}
}

// readPublic takes the next public entry: the map must have it under its number.
func (c *Client) readPublic(reg *registry, m proof.Map, e api.PublicEntry) error {
	if err := m.Has(proof.PublicLabel(reg.Next), proof.LeafHash(e.Leaf), e.Index, e.Proof); err != nil {
		return err
	}
	leaf, err := proof.ParseLeaf(e.Leaf)
	if err != nil {
		return err
	}
	if a, ok := leaf.(*proof.Agreement); ok {
		agreement, err := grant.OpenAgreement(a.Countersigned, c.policy.trust.Operator)
		if err != nil {
			return err
		}
		if err := c.rememberPartner(agreement.Partner, agreement.Name); err != nil {
			return err
		}
		if at, in := slices.BinarySearch(reg.Partners, agreement.Partner); !in {
			reg.Partners = slices.Insert(reg.Partners, at, agreement.Partner)
		}
	}
	reg.Next++
	return nil
}

// chainRef names one of the person's chains.
type chainRef struct {
	partner string
	chain   proof.Chain
}

// checkChains shows of every partner that both chains end where this device says, and returns how many records there are in all. Partners
// whose agreement ended are asked about like the others.
func (c *Client) checkChains(ctx context.Context, partners []string) (records uint64, err error) {
	var all []chainRef
	for _, p := range partners {
		all = append(all, chainRef{p, proof.Control}, chainRef{p, proof.Access})
	}
	for batch := range slices.Chunk(all, api.MaxChainEnds) {
		longer, n, err := c.checkEnds(ctx, batch)
		if err != nil {
			return 0, err
		}
		records += n
		for _, ref := range longer {
			n, err := c.checkLonger(ctx, ref)
			if err != nil {
				return 0, err
			}
			records += n
		}
	}
	return records, nil
}

// checkLonger takes the records of a chain that are new. Then it must end.
func (c *Client) checkLonger(ctx context.Context, ref chainRef) (uint64, error) {
	for tries := 0; ; tries++ {
		before, err := c.chainHead(ref)
		if err != nil {
			return 0, err
		}
		if err := c.takeRecords(ctx, ref, before); err != nil {
			return 0, err
		}
		longer, n, err := c.checkEnds(ctx, []chainRef{ref})
		if err != nil || len(longer) == 0 {
			return n, err
		}
		after, err := c.chainHead(ref)
		if err != nil {
			return 0, err
		}
		if after.N > before.N && tries < 10 { // records may be added while we look
			continue
		}
		if after.N == before.N {
			return 0, c.alarm(chat.ConversationID{}, chat.Errorf(chat.Tampered, "the server left out record %d of your %s history with %s: the ledger holds it",
				after.N, ref.chain, c.partnerName(ref.partner)), nil)
		}
		return 0, chat.Errorf(chat.Unavailable, "your %s history with %s grows faster than it can be read: try again", ref.chain, c.partnerName(ref.partner))
	}
}

// checkEnds asks for the proofs that chains have no record after those that are known. longer are those that have.
func (c *Client) checkEnds(ctx context.Context, refs []chainRef) (longer []chainRef, records uint64, err error) {
	var ask api.Completeness
	for _, ref := range refs {
		h, err := c.chainHead(ref)
		if err != nil {
			return nil, 0, err
		}
		ask.Chains = append(ask.Chains, api.ChainEnd{Partner: ref.partner, Chain: ref.chain.String(), Next: h.N})
	}
	answer, err := c.server.Completeness(ctx, ask)
	if err != nil {
		return nil, 0, err
	}
	m, err := c.head(ctx, answer.Head)
	if err != nil {
		return nil, 0, err
	}
	if len(answer.Chains) != len(refs) {
		return nil, 0, chat.Errorf(chat.Tampered, "the server does not show that your history is complete: it answers for %d of %d chains", len(answer.Chains), len(refs))
	}
	for i, ref := range refs {
		next := ask.Chains[i].Next
		held, err := c.holds(m, ref, next, answer.Chains[i])
		switch {
		case err != nil:
			return nil, 0, c.alarm(chat.ConversationID{}, chat.Wrap(chat.Tampered, err, "the server does not show that record %d of your %s history with %s is not there",
				next, ref.chain, c.partnerName(ref.partner)), canon.MustMarshal([][]byte{answer.Head, answer.Chains[i].VRFProof, answer.Chains[i].Proof}))
		case held:
			longer = append(longer, ref)
		default:
			records += next
		}
	}
	return longer, records, nil
}

// holds reports whether the map has a record n of a chain.
func (c *Client) holds(m proof.Map, ref chainRef, n uint64, p api.MapProof) (bool, error) {
	label, err := proof.CheckLabel(c.policy.vrf, proof.Place{Account: c.self.Account, Partner: ref.partner, Chain: ref.chain, N: n}, p.VRFProof)
	if err != nil {
		return false, err
	}
	return m.Holds(label.Label, p.Proof)
}

func headName(ref chainRef) string { return "head-" + ref.chain.String() + "-" + ref.partner }

func (c *Client) chainHead(ref chainRef) (h chainHead, err error) {
	err = c.state.View(func(tx StateTx) error { _, err := load(tx, bucketLedger, headName(ref), &h); return err })
	return h, err
}

// takeRecords fetches the records of a chain from the last known one on, and checks that they follow it.
func (c *Client) takeRecords(ctx context.Context, ref chainRef, known chainHead) error {
	var before *proof.Record
	if known.N > 0 {
		known.N-- // the last known one too: the next must follow it
	}
	for n := known.N; ; {
		page, err := c.server.Records(ctx, api.RecordQuery{Partner: ref.partner, Chain: ref.chain.String(), From: n, Limit: recordPage})
		if err != nil {
			return err
		}
		var fresh []*proof.Record
		for _, data := range page.Records {
			r, err := c.checkNext(ref, n, data.Record, before, known)
			if err != nil {
				return c.alarm(chat.ConversationID{}, err, data.Record)
			}
			if err := c.checkOwn(ref.chain, r); err != nil {
				return err
			}
			if before != nil || known.Last == (proof.Hash{}) {
				fresh = append(fresh, r)
			}
			before = r
			n++
		}
		if err := c.keepRecords(ref, fresh); err != nil || len(page.Records) < recordPage {
			return err
		}
	}
}

// checkNext checks record n of a chain. Where the one before is not at hand, it is the last known one itself.
func (c *Client) checkNext(ref chainRef, n uint64, data []byte, before *proof.Record, known chainHead) (*proof.Record, error) {
	r, err := proof.ParseRecord(data)
	if err != nil {
		return nil, err
	}
	if want := (proof.Place{Account: c.self.Account, Partner: ref.partner, Chain: ref.chain, N: n}); r.Place != want {
		return nil, chat.Errorf(chat.Tampered, "the server left out record %d of your history with %s", n, c.partnerName(ref.partner))
	}
	if before == nil && known.Last != (proof.Hash{}) {
		if r.LeafHash() != known.Last {
			return nil, chat.Errorf(chat.Tampered, "the server hides or has changed records of your history with %s that this device has seen", c.partnerName(ref.partner))
		}
		return r, nil
	}
	if err := r.Check(c.policy.vrf, before); err != nil {
		return nil, chat.Wrap(chat.Tampered, err, "record %d of your history with %s was altered", n, c.partnerName(ref.partner))
	}
	return r, nil
}

// checkOwn checks that control records hold what devices of this account signed; access records are the server's.
func (c *Client) checkOwn(chain proof.Chain, records ...*proof.Record) error {
	if chain != proof.Control {
		return nil
	}
	own, err := c.ownChain()
	if err != nil {
		return err
	}
	for _, r := range records {
		if err := c.checkSigned(r, own); err != nil {
			return c.alarm(chat.ConversationID{}, err, r.Bytes())
		}
	}
	return nil
}

// checkSigned checks that what a control record holds was signed by a device of this account, for this place.
func (c *Client) checkSigned(r *proof.Record, own *keychain.Chain) error {
	said, err := r.Says()
	if err != nil || said == nil { // erased at the person's wish
		return err
	}
	signed := signedIn(said)
	account, handle, partner, n := chat.AccountID{}, "", "", uint64(0)
	switch said.(type) {
	case *proof.Grant:
		var claim *grant.Grant
		if claim, err = grant.Peek(signed); err == nil {
			key, _ := own.KeyAt(claim.ChainVersion, claim.Device)
			_, err = grant.Open(signed, key)
			account, handle, partner, n = claim.Account, claim.Handle, claim.Partner, claim.Counter
		}
	case *proof.Narrow:
		var claim *grant.Narrowing
		if claim, err = grant.PeekNarrowing(signed); err == nil {
			_, err = grant.OpenNarrowing(signed, everyKey(own, claim.Device))
			account, handle, partner, n = claim.Account, claim.Handle, claim.Partner, claim.Counter
		}
	case *proof.Revoke:
		var claim *grant.Revocation
		if claim, err = grant.PeekRevocation(signed); err == nil {
			_, err = grant.OpenRevocation(signed, everyKey(own, claim.Device))
			account, handle, partner, n = claim.Account, claim.Handle, claim.Partner, claim.Counter
		}
	}
	if err == nil && (account != c.self.Account || handle != c.self.Handle || partner != r.Partner || n != r.N) {
		err = chat.Errorf(chat.Invalid, "it was signed for another place")
	}
	if err != nil {
		return chat.Wrap(chat.Tampered, err, "record %d of your history with %s is nothing that a device of yours signed", r.N, c.partnerName(r.Partner))
	}
	return nil
}

// everyKey is the key of a device that is or was in the chain; nil, under which nothing verifies, if there was none.
func everyKey(chain *keychain.Chain, id chat.DeviceID) []byte {
	for _, d := range slices.Concat(chain.Devices(), chain.Removed()) {
		if d.ID == id {
			return d.Key
		}
	}
	return nil
}

// keepRecords moves a chain's head on. Each new record must be in the ledger, now or soon.
func (c *Client) keepRecords(ref chainRef, fresh []*proof.Record) error {
	if len(fresh) == 0 {
		return nil
	}
	last := fresh[len(fresh)-1]
	return c.state.Update(func(tx StateTx) error {
		for _, r := range fresh {
			if err := save(tx, bucketUnlogged, hexName(hashBytes(r.LeafHash())), unlogged{Partner: r.Partner, Chain: r.Chain, N: r.N, Leaf: r.LeafHash(), Since: c.ms()}); err != nil {
				return err
			}
		}
		return save(tx, bucketLedger, headName(ref), chainHead{N: last.N + 1, Last: last.LeafHash()})
	})
}

func hashBytes(h proof.Hash) []byte { return h[:] }

// checkUnlogged looks again for records that the ledger did not hold, and returns how many it still does not. One that a later ledger
// does not hold is being kept out.
func (c *Client) checkUnlogged(ctx context.Context, m proof.Map) (waiting int, err error) {
	var all []unlogged
	err = c.state.View(func(tx StateTx) error {
		return tx.List(bucketUnlogged, "", func(name string, _ []byte) (bool, error) {
			var u unlogged
			_, err := load(tx, bucketUnlogged, name, &u)
			all = append(all, u)
			return true, err
		})
	})
	if err != nil {
		return 0, err
	}
	for _, u := range all {
		_, _, err := c.prove(ctx, u.Leaf, 0)
		switch {
		case err == nil:
			if err := c.state.Update(func(tx StateTx) error { return tx.Delete(bucketUnlogged, hexName(u.Leaf[:])) }); err != nil {
				return 0, err
			}
		case chat.Is(err, chat.Tampered), chat.Is(err, chat.Unavailable):
			return 0, err
		case m.At > u.Since+logDelay.Milliseconds():
			return 0, c.alarm(chat.ConversationID{}, chat.Errorf(chat.Tampered, "the server keeps record %d of your %s history with %s out of the ledger", u.N, u.Chain, c.partnerName(u.Partner)), u.Leaf[:])
		default:
			waiting++
		}
	}
	return waiting, nil
}

// keptOut says that what a person signed does not come into the ledger. Where witnesses are away, that is what keeps it.
func keptOut(what string, err error) error {
	if err == nil || chat.Is(err, chat.Tampered) || chat.Is(err, chat.NoQuorum) || errors.Is(err, context.Canceled) {
		return err
	}
	return chat.Wrap(chat.Unproven, err, "the server has not put %s into the ledger", what)
}
