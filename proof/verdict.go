package proof

import (
	"cmp"
	"encoding/base64"
	"slices"

	"letterlock/chat"
	"letterlock/grant"
)

// VerdictKind is the headline of a verdict in one word.
type VerdictKind string

// The kinds.
const (
	NeverAnything VerdictKind = "never"      // no grant, no exposure, no access
	NeverRead     VerdictKind = "never-read" // something was granted, and nobody of the partner could read anything
	WasExposed    VerdictKind = "exposed"    // the partner could read, by somebody else's grant alone
	HadAccess     VerdictKind = "access"     // the partner could read, by a grant of this person
	KeysAlone     VerdictKind = "keys"       // these were the person's keys
	ErasedUnknown VerdictKind = "erased"     // what would tell was erased or is withheld
)

// VerdictKinds are all kinds.
var VerdictKinds = []VerdictKind{NeverAnything, NeverRead, WasExposed, HadAccess, KeysAlone, ErasedUnknown}

// Verdict is what a bundle proves.
type Verdict struct {
	Kind     VerdictKind `json:"kind"`
	Headline string      `json:"headline"` // one sentence

	Host         string         `json:"host"`
	Account      chat.AccountID `json:"account"`
	Handle       string         `json:"handle"`
	Partner      string         `json:"partner"`
	PartnerName  string         `json:"partner_name"` // from the newest agreement; the partner id without one
	LedgerSize   int64          `json:"ledger_size"`
	LedgerRoot   string         `json:"ledger_root"` // base64
	LedgerPinned bool           `json:"ledger_pinned"`
	VRFPinned    bool           `json:"vrf_pinned"`
	PolicyPinned bool           `json:"policy_pinned"`

	AsOf      AsOf             `json:"as_of"`
	Witnesses []WitnessVerdict `json:"witnesses"` // who cosigned the checkpoint

	Grants       []GrantVerdict  `json:"grants"`
	Reads        []ReadVerdict   `json:"reads"`
	Devices      []DeviceVerdict `json:"devices"`       // in a bundle of keys alone
	Posts        int             `json:"posts"`         // under this account's grants
	Deletes      int             `json:"deletes"`       // under this account's grants
	OtherPosts   int             `json:"other_posts"`   // under grants not shown here: other people's in threads with this account
	OtherDeletes int             `json:"other_deletes"` // likewise
	Erased       int             `json:"erased"`        // records whose contents were erased or withheld

	Complete  bool     `json:"complete"` // nothing was left out up to this checkpoint; always true: what is not complete is refused
	Findings  []string `json:"findings"` // what contradicts itself: somebody did not do as they should
	Sentences []string `json:"sentences"`
	Limits    []string `json:"limits"` // what this cannot say

	headline                    message
	findings, sentences, limits []message
	lang                        Lang
}

// AsOf is when the checkpoint was the newest one, ms: by the witnesses' clocks, or by the server's where none signed it.
type AsOf struct {
	From int64  `json:"from"`
	To   int64  `json:"to"`
	By   string `json:"by"` // witnesses or server
}

// WitnessVerdict is a witness of the policy that cosigned the checkpoint.
type WitnessVerdict struct {
	Name           string `json:"name"` // of its key
	At             int64  `json:"at"`   // ms, its clock
	NotIndependent bool   `json:"not_independent"`
}

// DeviceVerdict is a device of the person.
type DeviceVerdict struct {
	Device  chat.DeviceID `json:"device"`
	Name    string        `json:"name"`
	Key     []byte        `json:"key"`               // Ed25519
	Added   uint64        `json:"added"`             // number of the key chain's entry
	Removed uint64        `json:"removed,omitempty"` // likewise; 0 while it is in the chain
	Stolen  bool          `json:"stolen,omitempty"`  // it was removed as stolen
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
		LedgerPinned: pins.LedgerVKey != "", VRFPinned: len(pins.VRFKey) > 0, PolicyPinned: len(pins.Policy) > 0,
		AsOf: v.asOf(), Witnesses: v.witnesses(), Complete: true,
		Grants: []GrantVerdict{}, Reads: []ReadVerdict{}, Devices: []DeviceVerdict{},
	}}
	all := slices.Concat(v.control, v.access)
	slices.SortFunc(all, func(x, y *Record) int { return cmp.Compare(x.Index, y.Index) })
	for _, record := range all {
		r.read(record)
	}
	r.finish()
	r.tell()
	r.Speak(English)
	return r.Verdict
}

// asOf is when the witnesses signed; without any, what the server says of the map root.
func (v *verification) asOf() AsOf {
	if len(v.cosigned) == 0 {
		return AsOf{v.theMap.At, v.theMap.At, "server"}
	}
	at := AsOf{v.cosigned[0].At, v.cosigned[0].At, "witnesses"}
	for _, c := range v.cosigned {
		at.From, at.To = min(at.From, c.At), max(at.To, c.At)
	}
	return at
}

func (v *verification) witnesses() []WitnessVerdict {
	list := []WitnessVerdict{}
	for _, c := range v.cosigned {
		name := c.Witness.KeyName()
		list = append(list, WitnessVerdict{name, c.At, OperatorRun(name, v.bundle.Host)})
	}
	return list
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
	v            *verification
	hiddenText   bool // a control record was erased: it may hold the grant that an access needs
	hiddenAccess bool // an access record was erased: it may be an exposure
	loose        bool // something was served to a reader to whom no exposure is recorded
}

func (r *reading) finding(format string, args ...any) {
	r.findings = append(r.findings, message{format, args})
}

// read takes one record into the verdict.
func (r *reading) read(record *Record) {
	p, err := record.Says() // parsed before: no error
	if err != nil {
		return
	}
	at := message{"entry %d", []any{record.Index}}
	switch p := p.(type) {
	case nil:
		r.Erased++
		r.hiddenText = r.hiddenText || record.Chain == Control
		r.hiddenAccess = r.hiddenAccess || record.Chain == Access
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

func (r *reading) control(e controlEntry, index int64, at message) {
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

func (r *reading) granted(e controlEntry, index int64, at message) {
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

func (r *reading) narrowed(n *grant.Narrowing, at message) {
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
func (r *reading) allowed(id chat.GrantID, c chat.ConversationID, need chat.Actions, when int64, at message, what word) {
	g := r.grant(id)
	switch {
	case g == nil:
		r.unless("%s is %s, and no grant allowed it", at, what)
	case g.How == "replaced" && g.Conversation == c && g.g.Actions.Has(need) && when < g.Ended+grant.PendingFor:
	case g.endIndex != 0:
		r.finding("%s is %s, logged after its grant was %s", at, what, word(g.How))
	case g.Conversation != c:
		r.finding("%s is %s in another conversation than the grant's", at, what)
	case !g.left.Has(need):
		r.finding("%s is %s, which its grant did not allow", at, what)
	}
}

func (r *reading) exposed(p *Exposed, at message) {
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

func (r *reading) ended(p *Ended, at message) {
	s := r.span(p.Grant, p.Conversation)
	if s == nil || s.ToEpoch != nil || p.Epoch <= s.FromEpoch || p.Granting != s.Granting {
		if s == nil {
			r.served(p.Grant)
		}
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

// served notes that something was served to a reader to whom no exposure is shown, unless the exposure may be one that was erased.
func (r *reading) served(id chat.GrantID) {
	r.loose = r.loose || r.Erased == 0 || r.grant(id) != nil
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

func (r *reading) opened(p *Open, at message) {
	s := r.span(p.Grant, p.Conversation)
	if s == nil {
		r.served(p.Grant)
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

func (r *reading) closed(p *Close, at message) {
	s := r.span(p.Grant, p.Conversation)
	if s == nil || !s.open[p.Period] {
		if s == nil {
			r.served(p.Grant)
		}
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

func (r *reading) posted(p *Post, at message) {
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

func (r *reading) deleted(p *Delete, at message) {
	if r.others(p.Grant) {
		r.OtherDeletes++
		return
	}
	r.allowed(p.Grant, p.Conversation, chat.Delete, p.At, at, "a delete")
	r.Deletes++
}

// finish adds what only the whole shows.
func (r *reading) finish() {
	r.Kind = r.kind()
	if r.Kind == KeysAlone {
		r.devices()
	}
	for _, g := range r.Grants {
		if g.Stolen && g.endIndex == 0 {
			r.finding("grant %s was signed by a device that was later reported stolen, and was not revoked", g.Grant)
		}
	}
}

// kind finds the headline. What was erased may be an exposure: without one that is shown, nothing is said.
func (r *reading) kind() VerdictKind {
	own := func(s ReadVerdict) bool { return s.Granting == r.Account }
	switch {
	case r.Partner == "":
		return KeysAlone
	case r.loose || slices.ContainsFunc(r.Reads, own):
		return HadAccess
	case len(r.Reads) > 0:
		return WasExposed
	case r.hiddenAccess:
		return ErasedUnknown
	case len(r.v.control)+len(r.v.access) > 0:
		return NeverRead
	}
	return NeverAnything
}

func (r *reading) devices() {
	for _, d := range slices.Concat(r.v.people.Devices(), r.v.people.Removed()) {
		r.Devices = append(r.Devices, DeviceVerdict{Device: d.ID, Name: d.Name, Key: d.Key, Added: d.Added, Removed: d.Removed,
			Stolen: r.v.people.RemovedAsStolen(d.ID)})
	}
	slices.SortFunc(r.Devices, func(x, y DeviceVerdict) int { return cmp.Compare(x.Added, y.Added) })
}
