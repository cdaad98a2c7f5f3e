package logpage

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"letterlock/grant"
	"letterlock/proof"
)

// Hash is 32 bytes that JSON and pages show in hex.
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Short is enough to tell two hashes apart at a glance.
func (h Hash) Short() string { return hex.EncodeToString(h[:6]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// Place is where an entry stands: its proof is at /log/proof/LEAF.
type Place struct {
	Index int64 `json:"index"`
	Leaf  Hash  `json:"leaf"` // leaf hash
}

// Partner is what the log says of one partner.
type Partner struct {
	ID         string       `json:"id"`
	Name       string       `json:"name"`  // of the newest agreement
	State      State        `json:"state"` // of the newest agreement
	Agreements []*Agreement `json:"agreements"`
	Reports    []Report     `json:"reports"`
}

// Newest is the last agreement that was logged.
func (p *Partner) Newest() *Agreement { return p.Agreements[len(p.Agreements)-1] }

// NewestFirst are the agreements as a reader wants them.
func (p *Partner) NewestFirst() []*Agreement {
	list := slices.Clone(p.Agreements)
	slices.Reverse(list)
	return list
}

// State says whether an agreement stands at the time of the page.
type State string

// The states.
const (
	InForce State = "in force"
	NotYet  State = "not yet in force"
	RanOut  State = "ran out"
	Ended   State = "ended"
	Stopped State = "stopped by the operator"
)

// Agreement is who may ask for what, and what is owed for it. Times are milliseconds since 1970.
type Agreement struct {
	Place
	Number         uint64   `json:"number"`
	Name           string   `json:"name"`
	State          State    `json:"state"`
	Actions        []string `json:"actions"`
	ReportDays     uint64   `json:"report_days"` // 0: owes no report
	PostsPerMinute uint64   `json:"posts_per_minute"`
	LinkBases      []string `json:"link_bases"`
	Interfaces     []string `json:"interfaces"`
	Surfaces       []string `json:"surfaces"`
	Variants       []string `json:"variants"`
	NotBefore      int64    `json:"not_before"`
	NotAfter       int64    `json:"not_after"`
	RootKey        Hash     `json:"root_key"`
	Terms          Hash     `json:"terms"`   // commitment to what is confidential; zero: nothing is
	Changes        []Change `json:"changes"` // against the agreement before
	End            *End     `json:"end,omitempty"`
	Owed           []Owed   `json:"owed"` // periods that are over, oldest first
}

// Confidential reports whether there are terms that the log only commits to.
func (a *Agreement) Confidential() bool { return a.Terms != Hash{} }

// Delivered counts the periods for which a report was logged.
func (a *Agreement) Delivered() (n int) {
	for _, o := range a.Owed {
		if len(o.Reports) > 0 {
			n++
		}
	}
	return n
}

// Change is a field in which an agreement differs from the one before.
type Change struct {
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// End says that an agreement is over.
type End struct {
	Place
	At     int64  `json:"at"`
	Cause  string `json:"cause"` // ended or stopped
	Reason string `json:"reason"`
}

// Report is the hash of a partner's report.
type Report struct {
	Place
	Start int64 `json:"start"`
	Hash  Hash  `json:"report"` // SHA-256
}

// Owed is a period for which the agreement asks for a report.
type Owed struct {
	From    int64    `json:"from"`
	To      int64    `json:"to"`
	Reports []Report `json:"reports"` // none: not delivered
}

// Release is a released file that the log knows.
type Release struct {
	Place
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  Hash   `json:"sha256"`
}

// record is what was read so far, in the log's order.
type record struct {
	read       uint64 // public entries
	agreements []logged[*grant.Agreement]
	ends       []logged[*proof.PartnerEnd]
	reports    []logged[*proof.Report]
	releases   []Release
	policies   []*proof.WitnessPolicy
	unread     []int64 // indexes of entries that this program cannot read
}

type logged[T any] struct {
	Place
	is T
}

// add reads an entry. What it cannot read it says.
func (r *record) add(e Entry, c *Config) {
	r.read++
	at := Place{e.Index, proof.LeafHash(e.Leaf)}
	leaf, err := proof.ParseLeaf(e.Leaf)
	if err != nil {
		r.unread = append(r.unread, e.Index)
		return
	}
	switch l := leaf.(type) {
	case *proof.Agreement:
		a, err := grant.OpenAgreement(l.Countersigned, c.ServerKey)
		if err != nil {
			r.unread = append(r.unread, e.Index)
			return
		}
		r.agreements = append(r.agreements, logged[*grant.Agreement]{at, a})
	case *proof.PartnerEnd:
		r.ends = append(r.ends, logged[*proof.PartnerEnd]{at, l})
	case *proof.Report:
		r.reports = append(r.reports, logged[*proof.Report]{at, l})
	case *proof.Release:
		r.releases = append(r.releases, Release{at, l.Name, l.Version, l.SHA256})
	case *proof.Policy:
		p, err := proof.ParsePolicy([]byte(l.Text))
		if err != nil {
			r.unread = append(r.unread, e.Index)
			return
		}
		r.policies = append(r.policies, p)
	}
}

// partners says how everything stands at a time, sorted by id.
func (r *record) partners(now int64) []*Partner {
	byID := map[string]*Partner{}
	list := []*Partner{}
	var before = map[string]*grant.Agreement{}
	for _, l := range r.agreements {
		p := byID[l.is.Partner]
		if p == nil {
			p = &Partner{ID: l.is.Partner, Reports: r.reportsOf(l.is.Partner)}
			byID[p.ID] = p
			list = append(list, p)
		}
		a := r.agreement(l, before[p.ID], now)
		a.Owed = owed(a, p.Reports, now)
		before[p.ID] = l.is
		p.Agreements = append(p.Agreements, a)
		p.Name, p.State = a.Name, a.State
	}
	slices.SortFunc(list, func(a, b *Partner) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

func (r *record) reportsOf(partner string) []Report {
	list := []Report{}
	for _, l := range r.reports {
		if l.is.Partner == partner {
			list = append(list, Report{l.Place, l.is.Start, l.is.Report})
		}
	}
	return list
}

func (r *record) agreement(l logged[*grant.Agreement], before *grant.Agreement, now int64) *Agreement {
	g := l.is
	a := &Agreement{Place: l.Place, Number: g.Number, Name: g.Name, State: InForce, Actions: g.Actions.Names(), ReportDays: g.ReportDays,
		PostsPerMinute: g.PostsPerMinute, LinkBases: full(g.LinkBases), Interfaces: full(g.Interfaces), Surfaces: full(g.Surfaces), Variants: full(g.Variants),
		NotBefore: g.NotBefore, NotAfter: g.NotAfter, RootKey: g.RootKey, Terms: g.Terms, Changes: changes(before, g)}
	switch {
	case now < g.NotBefore:
		a.State = NotYet
	case now >= g.NotAfter:
		a.State = RanOut
	}
	for _, e := range r.ends {
		if e.is.Agreement != l.Leaf {
			continue
		}
		a.State = Ended
		a.End = &End{e.Place, e.is.At, "ended", e.is.Reason}
		if e.is.Cause == proof.CauseStopped {
			a.State, a.End.Cause = Stopped, "stopped"
		}
		break
	}
	return a
}

// full is a list that JSON writes as [] where it is empty.
func full(list []string) []string { return append([]string{}, list...) }

// changes lists the fields in which an agreement differs from the one before it.
func changes(before, after *grant.Agreement) []Change {
	list := []Change{}
	if before == nil {
		return list
	}
	differ := func(what, b, a string) {
		if b != a {
			list = append(list, Change{what, b, a})
		}
	}
	differ("name", before.Name, after.Name)
	differ("may ask for", listText(before.Actions.Names()), listText(after.Actions.Names()))
	differ("owes", owesText(before.ReportDays), owesText(after.ReportDays))
	differ("posts a minute, for each grant", strconv.FormatUint(before.PostsPerMinute, 10), strconv.FormatUint(after.PostsPerMinute, 10))
	differ("links lead to", listText(before.LinkBases), listText(after.LinkBases))
	differ("interfaces", listText(before.Interfaces), listText(after.Interfaces))
	differ("surfaces", listText(before.Surfaces), listText(after.Surfaces))
	differ("variants", listText(before.Variants), listText(after.Variants))
	differ("in force from", dayText(before.NotBefore), dayText(after.NotBefore))
	differ("until", dayText(before.NotAfter), dayText(after.NotAfter))
	differ("root key", Hash(before.RootKey).String(), Hash(after.RootKey).String())
	differ("confidential terms", termsText(before.Terms), termsText(after.Terms))
	return list
}

const dayMS = 24 * 3600 * 1000

// maxOwed bounds the periods of one agreement that are listed, the newest ones.
const maxOwed = 400

// owed lists the periods of an agreement that are over, each as long as its report days say, from the agreement's first day on. A report
// belongs to the period in which its first day lies.
func owed(a *Agreement, reports []Report, now int64) []Owed {
	list := []Owed{}
	if a.ReportDays == 0 {
		return list
	}
	until := min(now, a.NotAfter)
	if a.End != nil {
		until = min(until, a.End.At)
	}
	length := int64(a.ReportDays) * dayMS
	first := a.NotBefore - a.NotBefore%dayMS
	if over := (until - first) / length; over > maxOwed {
		first += (over - maxOwed) * length
	}
	for from := first; from+length <= until; from += length {
		o := Owed{From: from, To: from + length, Reports: []Report{}}
		for _, r := range reports {
			if r.Start >= o.From && r.Start < o.To {
				o.Reports = append(o.Reports, r)
			}
		}
		list = append(list, o)
	}
	return list
}

func owesText(days uint64) string {
	switch days {
	case 0:
		return "no report"
	case 1:
		return "a report every day"
	}
	return fmt.Sprintf("a report every %d days", days)
}

// Owes is what the agreement asks of the partner.
func (a *Agreement) Owes() string { return owesText(a.ReportDays) }

func termsText(terms [32]byte) string {
	if terms == [32]byte{} {
		return "none"
	}
	return "commitment " + Hash(terms).Short()
}

func listText(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func timeText(ms int64) string { return time.UnixMilli(ms).UTC().Format("2 January 2006, 15:04 UTC") }

func dayText(ms int64) string { return time.UnixMilli(ms).UTC().Format("2 January 2006") }
