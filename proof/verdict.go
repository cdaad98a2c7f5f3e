package proof

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"letterlock/chat"
	"letterlock/grant"
)

// Verdict is what a bundle proves.
type Verdict struct {
	Host         string         `json:"host"`
	Account      chat.AccountID `json:"account"`
	Handle       string         `json:"handle"`
	Partner      string         `json:"partner"`
	PartnerName  string         `json:"partner_name"` // from the newest agreement; the partner id without one
	LedgerSize   int64          `json:"ledger_size"`
	LedgerRoot   string         `json:"ledger_root"` // base64
	LedgerPinned bool           `json:"ledger_pinned"`
	VRFPinned    bool           `json:"vrf_pinned"`

	Grants       []GrantVerdict `json:"grants"`
	Reads        []ReadVerdict  `json:"reads"`
	Posts        int            `json:"posts"`         // under this account's grants
	Deletes      int            `json:"deletes"`       // under this account's grants
	OtherPosts   int            `json:"other_posts"`   // under grants not shown here: other people's in threads with this account
	OtherDeletes int            `json:"other_deletes"` // likewise
	Erased       int            `json:"erased"`        // records whose contents were erased or withheld

	Complete  bool     `json:"complete"` // always false until the map exists
	Findings  []string `json:"findings"` // what contradicts itself: somebody did not do as they should
	Sentences []string `json:"sentences"`
	Limits    []string `json:"limits"` // what this cannot say
}

// GrantVerdict is one grant of the account.
type GrantVerdict struct {
	Grant        chat.GrantID        `json:"grant"`
	Conversation chat.ConversationID `json:"conversation"`
	Actions      []string            `json:"actions"`          // as granted
	Left         []string            `json:"left"`             // after narrowing; empty when it ended
	Issued       int64               `json:"issued"`           // ms, the device's clock
	Expiry       int64               `json:"expiry"`           // ms
	Index        int64               `json:"index"`            // of its record in the ledger
	Ended        int64               `json:"ended,omitempty"`  // ms, the device's clock: revoked, or replaced by another grant
	How          string              `json:"how,omitempty"`    // revoked or replaced
	Stolen       bool                `json:"stolen,omitempty"` // its device was later reported stolen

	g        *grant.Grant
	hash     grant.Hash
	left     chat.Actions
	endIndex int64 // of the record that ended it; 0 while it stands
}

// ReadVerdict is a span of epochs over which the partner could read a conversation.
type ReadVerdict struct {
	Conversation    chat.ConversationID `json:"conversation"`
	Grant           chat.GrantID        `json:"grant"`
	Granting        chat.AccountID      `json:"granting"`
	FromEpoch       uint64              `json:"from_epoch"`
	ToEpoch         *uint64             `json:"to_epoch"` // the last one; null while no end is recorded
	From            int64               `json:"from"`     // ms, the server's clock
	To              int64               `json:"to,omitempty"`
	Periods         int                 `json:"periods"` // in which something was about to be served
	Closed          int                 `json:"closed"`
	Countersigned   int                 `json:"countersigned"`
	Entries         uint64              `json:"entries"`          // served, by closed periods
	EntriesUnsigned uint64              `json:"entries_unsigned"` // of those, on the server's word alone

	agent [32]byte
	open  map[int64]bool // periods that are open
}

// verdict reads the verified records in the order in which the log holds them.
func (v *verification) verdict(pins Pins) *Verdict {
	b := v.bundle
	r := &reading{v: v, Verdict: &Verdict{
		Host: b.Host, Account: b.Account, Handle: b.Handle, Partner: b.Partner, PartnerName: v.partnerName(),
		LedgerSize: v.checkpoint.Size, LedgerRoot: base64.StdEncoding.EncodeToString(v.checkpoint.Root[:]),
		LedgerPinned: pins.LedgerVKey != "", VRFPinned: len(pins.VRFKey) > 0,
		Grants: []GrantVerdict{}, Reads: []ReadVerdict{}, Findings: []string{},
	}}
	all := slices.Concat(v.control, v.access)
	slices.SortFunc(all, func(x, y *Record) int { return cmp.Compare(x.Index, y.Index) })
	for _, record := range all {
		r.read(record)
	}
	r.finish()
	r.tell()
	return r.Verdict
}

// partnerName is the name in the newest agreement.
func (v *verification) partnerName() string {
	name, number := v.bundle.Partner, uint64(0)
	for _, a := range v.agreements {
		if a.Number >= number {
			name, number = a.Name, a.Number
		}
	}
	return name
}

// reading is a verdict in the making.
type reading struct {
	*Verdict
	v          *verification
	hiddenText bool // a control record was erased: it may hold the grant that an access needs
}

func (r *reading) finding(format string, args ...any) {
	r.Findings = append(r.Findings, fmt.Sprintf(format, args...))
}

// read takes one record into the verdict.
func (r *reading) read(record *Record) {
	p, err := record.Says() // parsed before: no error
	if err != nil {
		return
	}
	at := fmt.Sprintf("entry %d", record.Index)
	switch p := p.(type) {
	case nil:
		r.Erased++
		r.hiddenText = r.hiddenText || record.Chain == Control
	case *Grant, *Narrow, *Revoke:
		r.control(r.v.entries[record.N], record.Index, at)
	case *Exposed:
		r.exposed(p, at)
	case *Ended:
		r.ended(p, at)
	case *Open:
		r.opened(p, at)
	case *Close:
		r.closed(p, at)
	case *Post:
		r.posted(p, at)
	case *Delete:
		r.deleted(p, at)
	}
}

func (r *reading) control(e controlEntry, index int64, at string) {
	switch {
	case e.grant != nil:
		r.granted(e, index, at)
	case e.narrow != nil:
		r.narrowed(e.narrow, at)
	case e.revoke != nil:
		g := r.grant(e.revoke.Grant)
		if g == nil || g.endIndex != 0 {
			r.unless("%s revokes a grant that does not stand", at)
			return
		}
		g.end("revoked", e.revoke.At, index)
	}
}

func (r *reading) granted(e controlEntry, index int64, at string) {
	g := e.grant
	if r.grant(g.ID) != nil {
		r.finding("%s grants under an id that was used before", at)
		return
	}
	if g.Previous != (grant.Hash{}) {
		i := slices.IndexFunc(r.Grants, func(o GrantVerdict) bool { return o.hash == g.Previous })
		if i < 0 {
			r.unless("%s replaces a grant that is not in the bundle", at)
		} else if r.Grants[i].endIndex == 0 {
			r.Grants[i].end("replaced", g.Issued, index)
		}
	}
	r.Grants = append(r.Grants, GrantVerdict{Grant: g.ID, Conversation: g.Conversation, Actions: g.Actions.Names(), Left: g.Actions.Names(),
		Issued: g.Issued, Expiry: g.Expiry, Index: index, Stolen: e.byStolen, g: g, hash: e.hash, left: g.Actions})
}

func (g *GrantVerdict) end(how string, at, index int64) {
	g.How, g.Ended, g.endIndex = how, at, index
	g.Left, g.left = []string{}, 0
}

func (r *reading) narrowed(n *grant.Narrowing, at string) {
	g := r.grant(n.Grant)
	switch {
	case g == nil || g.endIndex != 0:
		r.unless("%s narrows a grant that does not stand", at)
	case !g.left.Has(n.Actions) || g.left == n.Actions:
		r.finding("%s narrows a grant to actions that it did not have", at)
	default:
		g.left, g.Left = n.Actions, n.Actions.Names()
	}
}

// grant finds a grant of the account; nil if the bundle shows none with that id.
func (r *reading) grant(id chat.GrantID) *GrantVerdict {
	for i := range r.Grants {
		if r.Grants[i].Grant == id {
			return &r.Grants[i]
		}
	}
	return nil
}

// unless is a finding, unless an erased control record may explain it.
func (r *reading) unless(format string, args ...any) {
	if !r.hiddenText {
		r.finding(format, args...)
	}
}

// allowed checks an access of the account's own grant against what the grant said when the access was logged.
//
// A grant that replaces another is recorded before the commit that puts it in the other's place, at most grant.PendingFor later: until then the
// other one still stands.
func (r *reading) allowed(id chat.GrantID, c chat.ConversationID, need chat.Actions, when int64, at, what string) {
	g := r.grant(id)
	switch {
	case g == nil:
		r.unless("%s is %s, and no grant allowed it", at, what)
	case g.How == "replaced" && g.Conversation == c && g.g.Actions.Has(need) && when < g.Ended+grant.PendingFor:
	case g.endIndex != 0:
		r.finding("%s is %s, logged after its grant was %s", at, what, g.How)
	case g.Conversation != c:
		r.finding("%s is %s in another conversation than the grant's", at, what)
	case !g.left.Has(need):
		r.finding("%s is %s, which its grant did not allow", at, what)
	}
}

func (r *reading) exposed(p *Exposed, at string) {
	if s := r.span(p.Grant, p.Conversation); s != nil && s.ToEpoch == nil {
		r.finding("%s is an exposure to a reader that was there already", at)
		return
	}
	if p.Granting == r.Account {
		r.allowed(p.Grant, p.Conversation, chat.Read, p.At, at, "an exposure")
		if g := r.grant(p.Grant); g != nil && g.g.AgentKey != p.AgentKey {
			r.finding("%s is an exposure to another key than the grant's", at)
		}
	} else if r.grant(p.Grant) != nil {
		r.finding("%s ascribes a grant of %s to somebody else", at, r.Handle)
	}
	r.Reads = append(r.Reads, ReadVerdict{Conversation: p.Conversation, Grant: p.Grant, Granting: p.Granting,
		FromEpoch: p.Epoch, From: p.At, agent: p.AgentKey, open: map[int64]bool{}})
}

func (r *reading) ended(p *Ended, at string) {
	s := r.span(p.Grant, p.Conversation)
	if s == nil || s.ToEpoch != nil || p.Epoch <= s.FromEpoch || p.Granting != s.Granting {
		r.unlessErased("%s ends an exposure that is not recorded like that", at)
		return
	}
	last := p.Epoch - 1
	s.ToEpoch, s.To = &last, p.At
}

// unlessErased is a finding, unless any erased record may explain it.
func (r *reading) unlessErased(format string, args ...any) {
	if r.Erased == 0 {
		r.finding(format, args...)
	}
}

// span finds the newest span of a reader.
func (r *reading) span(id chat.GrantID, c chat.ConversationID) *ReadVerdict {
	for i := len(r.Reads) - 1; i >= 0; i-- {
		if r.Reads[i].Grant == id && r.Reads[i].Conversation == c {
			return &r.Reads[i]
		}
	}
	return nil
}

func (r *reading) opened(p *Open, at string) {
	s := r.span(p.Grant, p.Conversation)
	if s == nil {
		r.unlessErased("%s opens access for a reader to whom no exposure is recorded", at)
		return
	}
	if p.Epoch < s.FromEpoch || s.ToEpoch != nil && p.Epoch > *s.ToEpoch {
		r.finding("%s opens access at epoch %d, outside the exposure", at, p.Epoch)
	}
	if s.Granting == r.Account {
		r.allowed(p.Grant, p.Conversation, chat.Read, p.Period, at, "an access")
	}
	s.Periods++
	s.open[p.Period] = true
}

func (r *reading) closed(p *Close, at string) {
	s := r.span(p.Grant, p.Conversation)
	if s == nil || !s.open[p.Period] {
		r.unlessErased("%s closes an access period that was not opened", at)
		return
	}
	if p.Epoch < s.FromEpoch || s.ToEpoch != nil && p.Epoch > *s.ToEpoch {
		r.finding("%s closes access at epoch %d, outside the exposure", at, p.Epoch)
	}
	delete(s.open, p.Period)
	s.Closed++
	s.Entries += p.Count
	if len(p.Countersignature) == 0 {
		s.EntriesUnsigned += p.Count
		return
	}
	if err := p.CheckCountersignature(r.Host, s.agent[:]); err != nil {
		s.EntriesUnsigned += p.Count
		r.finding("%s holds a countersignature that is not the agent's", at)
		return
	}
	s.Countersigned++
}

// others reports whether a grant is not the account's, as far as the bundle shows. Send-only grants of other people in the thread
// leave no exposure, so that a grant of which nothing is shown is taken for another person's; the verdict says so.
func (r *reading) others(id chat.GrantID) bool {
	if r.grant(id) != nil {
		return false
	}
	for _, s := range r.Reads {
		if s.Grant == id {
			return s.Granting != r.Account
		}
	}
	return true
}

func (r *reading) posted(p *Post, at string) {
	if r.others(p.Grant) {
		r.OtherPosts++
		return
	}
	r.allowed(p.Grant, p.Conversation, chat.Send, p.At, at, "a post")
	if g := r.grant(p.Grant); g != nil && p.At >= g.Expiry {
		r.finding("%s is a post after its grant expired", at)
	}
	r.Posts++
}

func (r *reading) deleted(p *Delete, at string) {
	if r.others(p.Grant) {
		r.OtherDeletes++
		return
	}
	r.allowed(p.Grant, p.Conversation, chat.Delete, p.At, at, "a delete")
	r.Deletes++
}

// finish adds what only the whole shows.
func (r *reading) finish() {
	for _, g := range r.Grants {
		if g.Stolen && g.endIndex == 0 {
			r.finding("grant %s was signed by a device that was later reported stolen, and was not revoked", g.Grant)
		}
	}
}

// tell writes the sentences.
func (r *reading) tell() {
	r.say("The ledger %s signed a tree of %d entries; every record below is one of them.", Origin(r.Host), r.LedgerSize)
	for _, g := range r.Grants {
		r.tellGrant(g)
	}
	for _, s := range r.Reads {
		r.tellRead(s)
	}
	if r.Posts+r.Deletes > 0 {
		r.say("For %s, %s put %s through the slot and took back %s.", r.Handle, r.PartnerName, count(r.Posts, "post"), count(r.Deletes, "post"))
	}
	if r.OtherPosts+r.OtherDeletes > 0 {
		r.say("In conversations with %s, under grants that are not shown here (other people's, or erased), %s put %s through the slot and took back %s.",
			r.Handle, r.PartnerName, count(r.OtherPosts, "post"), count(r.OtherDeletes, "post"))
	}
	if r.Erased > 0 {
		r.say("The contents of %s were erased or are withheld; what they say is not known.", count(r.Erased, "record"))
	}
	r.tellRest()
	r.Limits = r.limits()
}

func (r *reading) say(format string, args ...any) {
	r.Sentences = append(r.Sentences, fmt.Sprintf(format, args...))
}

func (r *reading) tellGrant(g GrantVerdict) {
	end := ""
	if g.endIndex != 0 {
		end = fmt.Sprintf("; %s %s, entry %d", g.How, clock(g.Ended), g.endIndex)
	} else if len(g.Left) < len(g.Actions) {
		end = fmt.Sprintf("; narrowed to %s", strings.Join(g.Left, ", "))
	}
	r.say("%s granted %s %s in conversation %s, from %s until %s (grant %s, entry %d)%s.", r.Handle, r.PartnerName,
		strings.Join(g.Actions, ", "), g.Conversation, clock(g.Issued), clock(g.Expiry), g.Grant, g.Index, end)
}

func (r *reading) tellRead(s ReadVerdict) {
	who := "under a grant of " + r.Handle
	if s.Granting != r.Account {
		who = "under a grant of account " + s.Granting.String()
	}
	if s.ToEpoch != nil {
		r.say("%s could read conversation %s from epoch %d to epoch %d (times %s to %s, by the server's clock), %s.",
			r.PartnerName, s.Conversation, s.FromEpoch, *s.ToEpoch, clock(s.From), clock(s.To), who)
	} else {
		r.say("%s could read conversation %s from epoch %d on (time %s, by the server's clock), %s; no end is recorded in this bundle.",
			r.PartnerName, s.Conversation, s.FromEpoch, clock(s.From), who)
	}
	if s.Periods > 0 {
		r.say("It was served there in %s, of which %d are closed: %s, %d of them on the server's word alone (%d closings countersigned by the agent).",
			count(s.Periods, "access period"), s.Closed, count(int(s.Entries), "entry"), s.EntriesUnsigned, s.Countersigned)
	}
}

func (r *reading) tellRest() {
	if len(r.v.control)+len(r.v.access) == 0 {
		r.say("This bundle holds no grant of %s for %s, no exposure and no access; completeness not proven.", r.Handle, r.PartnerName)
		return
	}
	r.say("No other grant of %s for %s and no other access is in this bundle; completeness not proven.", r.Handle, r.PartnerName)
}

func (r *reading) limits() []string {
	limits := []string{
		"It shows what was logged up to its checkpoint. Records after the last one shown could exist: completeness not proven.",
		"It shows no other accounts and no other partners than the one named.",
		"Times are the word of the server and of the person's devices.",
		"What could be read may have been copied.",
	}
	if !r.LedgerPinned {
		limits = append(limits, "The ledger's key is the bundle's own claim: compare it with the one that the server publishes.")
	}
	if !r.VRFPinned {
		limits = append(limits, "The VRF key is what entry 0 of that ledger announces.")
	}
	return limits
}

func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "y") {
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(noun, "y"))
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Text is the verdict for people.
func (v *Verdict) Text() string {
	var s strings.Builder
	for _, line := range v.Sentences {
		fmt.Fprintln(&s, line)
	}
	for _, line := range v.Findings {
		fmt.Fprintln(&s, "CONTRADICTION:", line)
	}
	fmt.Fprintln(&s, "What this cannot say:")
	for _, line := range v.Limits {
		fmt.Fprintln(&s, " -", line)
	}
	return s.String()
}
