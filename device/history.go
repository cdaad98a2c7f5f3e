package device

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/proof"
)

// recordPage is how many records are asked for at once.
const recordPage = 200

// chainHead is how far a chain of records was seen: the server may add to it, never take back.
type chainHead struct {
	_    struct{} `cbor:",toarray"`
	N    uint64   // how many records there were
	Last [32]byte
}

// records fetches a whole chain and checks it: every record with its label, each following the one before, none missing in between,
// and none gone that this device has seen.
func (c *Client) records(ctx context.Context, partner string, chain proof.Chain) ([]*proof.Record, error) {
	var all []*proof.Record
	for {
		page, err := c.server.Records(ctx, api.RecordQuery{Partner: partner, Chain: chain.String(), From: uint64(len(all)), Limit: recordPage})
		if err != nil {
			return nil, err
		}
		for _, r := range page.Records {
			record, err := c.checkRecord(partner, chain, r.Record, all)
			if err != nil {
				return nil, c.alarm(chat.ConversationID{}, err, r.Record)
			}
			all = append(all, record)
		}
		if len(page.Records) < recordPage {
			return all, c.compareHead(partner, chain, all)
		}
	}
}

func (c *Client) checkRecord(partner string, chain proof.Chain, data []byte, before []*proof.Record) (*proof.Record, error) {
	r, err := proof.ParseRecord(data)
	if err != nil {
		return nil, err
	}
	if want := (proof.Place{Account: c.self.Account, Partner: partner, Chain: chain, N: uint64(len(before))}); r.Place != want {
		return nil, chat.Errorf(chat.Tampered, "the server left out record %d of your history with %s", len(before), c.partnerName(partner))
	}
	var last *proof.Record
	if len(before) > 0 {
		last = before[len(before)-1]
	}
	if err := r.Check(c.policy.vrf, last); err != nil {
		return nil, chat.Wrap(chat.Tampered, err, "record %d of your history with %s was altered", len(before), c.partnerName(partner))
	}
	return r, nil
}

// compareHead holds a chain against what this device saw of it before.
func (c *Client) compareHead(partner string, chain proof.Chain, all []*proof.Record) error {
	ref := chainRef{partner, chain}
	seen, err := c.chainHead(ref)
	if err != nil {
		return err
	}
	if n := uint64(len(all)); n < seen.N || seen.N > 0 && all[seen.N-1].LeafHash() != seen.Last {
		return c.alarm(chat.ConversationID{}, chat.Errorf(chat.Tampered, "the server hides or has changed records of your history with %s that this device has seen", c.partnerName(partner)),
			canon.MustMarshal(seen))
	}
	fresh := all[seen.N:]
	if err := c.checkOwn(chain, fresh...); err != nil {
		return err
	}
	return c.keepRecords(ref, fresh)
}

// nextControl is the counter of the next grant, narrowing or revocation for a partner.
func (c *Client) nextControl(ctx context.Context, partner string) (uint64, error) {
	all, err := c.records(ctx, partner, proof.Control)
	return uint64(len(all)), err
}

// HistoryEntry is one record of the person's history, checked.
type HistoryEntry struct {
	Partner string `json:"partner"`
	Chain   string `json:"chain"`
	N       uint64 `json:"n"`
	What    string `json:"what"` // grant, narrow, revoke, open, close, post, delete, exposed, ended, erased
	Text    string `json:"text"`
	At      int64  `json:"at,omitempty"`
	Index   int64  `json:"index"`  // in the ledger
	Proven  bool   `json:"proven"` // included in the ledger that this device remembers
}

// History is the person's whole history with a partner: what was allowed, and what was done with it. Each record is checked against
// the ledger; one that the ledger does not hold yet says so.
func (c *Client) History(ctx context.Context, partner string) ([]HistoryEntry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []HistoryEntry{}
	for _, chain := range []proof.Chain{proof.Control, proof.Access} {
		all, err := c.records(ctx, partner, chain)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			e := c.describe(r)
			index, _, err := c.prove(ctx, r.LeafHash(), proofWait)
			if chat.Is(err, chat.Tampered) {
				return nil, err
			}
			e.Index, e.Proven = index, err == nil
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, inLedgerOrder)
	return list, nil
}

// inLedgerOrder puts both chains into the order in which the ledger took them; what it has not taken comes last.
func inLedgerOrder(a, b HistoryEntry) int {
	if a.Proven != b.Proven {
		if a.Proven {
			return -1
		}
		return 1
	}
	return cmp.Compare(a.Index, b.Index)
}

// Partners lists the partners of the server with their agreements, each checked.
func (c *Client) Partners(ctx context.Context) ([]PartnerInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, err := c.server.ListPartners(ctx)
	if err != nil {
		return nil, err
	}
	list := []PartnerInfo{}
	for _, p := range all.Partners {
		info := PartnerInfo{ID: p.ID, Name: p.Name, Active: p.Active}
		a, err := c.checkPartner(ctx, p)
		if err != nil {
			info.Problem = err.Error()
		} else {
			info.Name, info.Actions, info.ReportDays, info.Until, info.PostsPerMinute = a.Name, a.Actions.Names(), a.ReportDays, a.NotAfter, a.PostsPerMinute
		}
		list = append(list, info)
	}
	return list, nil
}

// PartnerInfo is a partner as a person sees it.
type PartnerInfo struct {
	ID             string   `json:"id"`
	Name           string   `json:"name"`
	Active         bool     `json:"active"`
	Actions        []string `json:"actions"`
	ReportDays     uint64   `json:"report_days"`
	PostsPerMinute uint64   `json:"posts_per_minute"`
	Until          int64    `json:"until"`
	Problem        string   `json:"problem,omitempty"`
}

// Proof fetches the bundle about a partner, or about the keys alone where none is named, checks it as a stranger would, and holds it against what
// this device remembers, before anybody gets it.
func (c *Client) Proof(ctx context.Context, partner string) ([]byte, *proof.Verdict, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[proof.Chain][]*proof.Record{}
	if partner != "" {
		for _, chain := range []proof.Chain{proof.Control, proof.Access} {
			all, err := c.records(ctx, partner, chain)
			if err != nil {
				return nil, nil, err
			}
			seen[chain] = all
			if len(all) == 0 {
				continue
			}
			// Everything must be included before it can be proven.
			if _, _, err := c.prove(ctx, all[len(all)-1].LeafHash(), proofWait); err != nil {
				return nil, nil, err
			}
		}
	}
	data, err := c.server.Bundle(ctx, partner)
	if err != nil {
		return nil, nil, err
	}
	pins := proof.Pins{LedgerVKey: c.self.LedgerVKey, VRFKey: c.self.VRFKey}
	if c.policy.witnesses != nil {
		pins.Policy = []byte(c.policy.witnesses.String())
	}
	v, err := proof.Verify(data, pins)
	if err != nil {
		return nil, nil, chat.Wrap(chat.Tampered, err, "the server made a bundle that does not hold")
	}
	return data, v, c.compareBundle(ctx, data, partner, seen)
}

// compareBundle makes sure that a bundle that holds is about this account and partner, of a tree that continues the remembered one, and has every
// record and key that this device has seen.
func (c *Client) compareBundle(ctx context.Context, data []byte, partner string, seen map[proof.Chain][]*proof.Record) error {
	b, err := proof.ParseBundle(data)
	if err != nil {
		return err
	}
	if b.Account != c.self.Account || b.Host != c.self.Host || b.Partner != partner || !bytes.Equal(b.ServerKey, c.self.ServerKey) {
		return chat.Errorf(chat.Tampered, "the server made a bundle about somebody else")
	}
	if err := c.moveTo(ctx, []byte(b.Checkpoint), b.Map.Index+1); err != nil {
		return err
	}
	for chain, bundled := range map[proof.Chain][]proof.BundledRecord{proof.Control: b.Control, proof.Access: b.Access} {
		n := len(seen[chain])
		if n == 0 {
			continue
		}
		if len(bundled) < n {
			return chat.Errorf(chat.Tampered, "the server left records out of the bundle that this device has seen")
		}
		r, err := proof.ParseRecord(bundled[n-1].Record)
		if err != nil || r.LeafHash() != seen[chain][n-1].LeafHash() {
			return chat.Errorf(chat.Tampered, "the server put other records into the bundle than this device has seen")
		}
	}
	return c.compareKeys(b.KeyChain)
}

// moveTo moves to the checkpoint of a bundle, of a tree of that size.
func (c *Client) moveTo(ctx context.Context, signed []byte, size int64) (err error) {
	var consistency [][32]byte
	if last := c.log.Checkpoint(); last.Size > 0 && last.Size < size {
		if consistency, err = c.server.ConsistencyProof(ctx, last.Size, size); err != nil {
			return err
		}
	}
	return c.remember(c.log.Advance(signed, consistency))
}

// compareKeys holds the key chain of a bundle against one's own.
func (c *Client) compareKeys(entries [][]byte) error {
	own, err := c.ownChain()
	if err != nil {
		return err
	}
	if uint64(len(entries)) <= own.Version() {
		return chat.Errorf(chat.Unavailable, "the ledger does not hold your newest keys yet: try again in a few seconds")
	}
	chain, err := keychain.Open(entries)
	if err == nil {
		err = chain.Extends(own)
	}
	if err != nil {
		return chat.Wrap(chat.Tampered, err, "the server put other keys into the bundle than yours")
	}
	return nil
}

// CheckLedger follows the ledger and holds it against what this device remembers.
func (c *Client) CheckLedger(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.follow(ctx)
}

// describe says in a sentence what a record holds.
func (c *Client) describe(r *proof.Record) HistoryEntry {
	e := HistoryEntry{Partner: r.Partner, Chain: r.Chain.String(), N: r.N, Index: r.Index}
	said, err := r.Says()
	if err != nil || said == nil {
		e.What, e.Text = "erased", "erased at your wish; the ledger keeps its seal only"
		return e
	}
	e.What = said.Kind().String()
	c.tell(&e, said, c.partnerName(r.Partner))
	return e
}

func (c *Client) tell(e *HistoryEntry, said proof.Payload, partner string) {
	say := func(at int64, text string) { e.At, e.Text = at, text }
	switch p := said.(type) {
	case *proof.Grant:
		if g, err := grant.Peek(p.Signed); err == nil {
			say(g.Issued, "you allowed "+partner+" to "+andList(g.Actions)+" in thread "+short(g.Conversation))
		}
	case *proof.Narrow:
		if n, err := grant.PeekNarrowing(p.Signed); err == nil {
			say(n.At, "you left "+partner+" only "+andList(n.Actions)+" in thread "+short(n.Conversation))
		}
	case *proof.Revoke:
		if v, err := grant.PeekRevocation(p.Signed); err == nil {
			say(v.At, "you ended "+partner+"'s permission in thread "+short(v.Conversation))
		}
	case *proof.Open:
		say(p.Period, partner+" began to read thread "+short(p.Conversation))
	case *proof.Close:
		say(p.Period, partner+" was served "+plural(p.Count, "entry", "entries")+" of thread "+short(p.Conversation)+countersigned(p))
	case *proof.Post:
		say(p.At, partner+" sent a message in thread "+short(p.Conversation))
	case *proof.Delete:
		say(p.At, partner+" took back a message in thread "+short(p.Conversation))
	case *proof.Exposed:
		say(p.At, partner+" could read thread "+short(p.Conversation)+" from here on")
	case *proof.Ended:
		say(p.At, partner+" could no longer read thread "+short(p.Conversation))
	}
}

func countersigned(p *proof.Close) string {
	if len(p.Countersignature) > 0 {
		return ", and its app confirmed that"
	}
	return ", by the server's word alone"
}

func short(id chat.ConversationID) string { return id.String()[:8] }

func plural(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatUint(n, 10) + " " + many
}

func andList(a chat.Actions) string { return strings.Join(a.Names(), ", ") }
