package report

import (
	"cmp"
	"slices"

	"letterlock/grant"
	"letterlock/store"
)

// Format names the JSON form of spec/report.md.
const Format = "letterlock-report/1"

// Report is what the operator and the partner see of fourteen days. Its hash, over exactly these bytes, stands in the ledger.
type Report struct {
	Format    string `json:"format"`
	Partner   string `json:"partner"`
	Agreement uint64 `json:"agreement"` // number of the agreement in force when it was built
	From      string `json:"from"`      // first day, UTC
	To        string `json:"to"`        // last day
	Threshold uint64 `json:"threshold"`
	Days      []Day  `json:"days"` // those with something to count
	Total     Sums   `json:"total"`
}

// Day is one day's counts.
type Day struct {
	Day   string `json:"day"`
	Cells []Cell `json:"cells"`
	Total Sums   `json:"total"`
}

// Cell is the count under one set of labels.
type Cell struct {
	Interface string `json:"interface"`
	Surface   string `json:"surface"`
	Variant   string `json:"variant"`
	Recipient string `json:"recipient"`
	Sums
}

// Sums are sends and clicks.
type Sums struct {
	Sends  Sum `json:"sends"`
	Clicks Sum `json:"clicks"`
}

// Sum is one number beside the partner's own. Withheld, it holds neither.
type Sum struct {
	Count    *uint64 `json:"count,omitempty"`
	Partner  *uint64 `json:"partner,omitempty"` // what the partner says; absent: nothing
	Agrees   *bool   `json:"agrees,omitempty"`
	Withheld bool    `json:"withheld,omitempty"`
}

// cell is a count before anything was withheld.
type cell struct {
	day           int64
	labels        store.Labels
	sends, clicks pair
}

// pair is our count and the partner's.
type pair struct {
	ours, theirs uint64
	told         bool // the partner handed in a figure
}

func (p pair) add(q pair) pair { return pair{p.ours + q.ours, p.theirs + q.theirs, p.told || q.told} }

func (p pair) shown() Sum {
	s := Sum{Count: &p.ours}
	if p.told {
		agrees := p.ours == p.theirs
		s.Partner, s.Agrees = &p.theirs, &agrees
	}
	return s
}

// assemble puts counts and figures side by side and withholds what must be.
func assemble(a *grant.Agreement, first int64, threshold uint64, counts, figures []store.Count) Report {
	r := Report{Format: Format, Partner: a.Partner, Agreement: a.Number, From: dayText(first), To: dayText(first + Days - 1), Threshold: threshold, Days: []Day{}}
	cells := merge(counts, figures)
	sends, clicks := newTotals(threshold), newTotals(threshold)
	for len(cells) > 0 {
		n := slices.IndexFunc(cells, func(c cell) bool { return c.day != cells[0].day })
		if n < 0 {
			n = len(cells)
		}
		day := Day{Day: dayText(cells[0].day), Cells: make([]Cell, n)}
		for i, c := range cells[:n] {
			day.Cells[i] = Cell{c.labels.Interface, c.labels.Surface, c.labels.Variant, c.labels.Recipient, Sums{sends.cell(c.sends), clicks.cell(c.clicks)}}
		}
		day.Total = Sums{sends.endDay(), clicks.endDay()}
		r.Days = append(r.Days, day)
		cells = cells[n:]
	}
	r.Total = Sums{sends.end(), clicks.end()}
	return r
}

// merge lists every set of labels that either side counted something under, by day and labels.
func merge(counts, figures []store.Count) []cell {
	type key struct {
		day    int64
		labels store.Labels
	}
	all := map[key]*cell{}
	at := func(c store.Count) *cell {
		k := key{c.Day, c.Labels}
		if all[k] == nil {
			all[k] = &cell{day: c.Day, labels: c.Labels}
		}
		return all[k]
	}
	for _, c := range counts {
		to := at(c)
		to.sends.ours, to.clicks.ours = c.Sends, c.Clicks
	}
	for _, c := range figures {
		to := at(c)
		to.sends = to.sends.add(pair{0, c.Sends, true})
		to.clicks = to.clicks.add(pair{0, c.Clicks, true})
	}
	list := make([]cell, 0, len(all))
	for _, c := range all {
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b cell) int {
		x, y := a.labels, b.labels
		return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(x.Interface, y.Interface), cmp.Compare(x.Surface, y.Surface),
			cmp.Compare(x.Variant, y.Variant), cmp.Compare(x.Recipient, y.Recipient))
	})
	return list
}

// totals adds up one measure over cells, days and the whole report, and decides what is withheld.
type totals struct {
	threshold uint64
	day, all  group
}

func newTotals(threshold uint64) *totals { return &totals{threshold: threshold} }

// group is a sum of cells.
type group struct {
	sum      pair
	withheld bool // one of them was
}

func (g group) add(h group) group { return group{g.sum.add(h.sum), g.withheld || h.withheld} }

// shown is the sum, unless a cell beneath it is withheld. A finer rule would look at how much is hidden before it shows a total; but then
// already that a total is shown, or is not, tells something of the cells beneath it. This one depends on nothing that its reader cannot see.
func (g group) shown() Sum {
	if g.withheld {
		return Sum{Withheld: true}
	}
	return g.sum.shown()
}

// cell shows a count that reaches the threshold. A threshold of 1 withholds nothing: zero is then no secret.
func (t *totals) cell(p pair) Sum {
	c := group{p, p.ours < t.threshold && t.threshold > 1}
	t.day = t.day.add(c)
	return c.shown()
}

// endDay is the day's total.
func (t *totals) endDay() Sum {
	day := t.day
	t.day = group{}
	t.all = t.all.add(day)
	return day.shown()
}

// end is the report's total.
func (t *totals) end() Sum { return t.all.shown() }
