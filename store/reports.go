package store

import (
	"cmp"
	"slices"
)

// Labels say what a send or a click is counted under.
type Labels struct {
	Interface string
	Surface   string
	Variant   string
	Recipient string // kind of recipient
}

// Link is a share link. It says nothing of who made it or for whom.
type Link struct {
	ID      [16]byte
	Partner string
	Number  uint64 // of the agreement
	Base    string // the partner's address
	Labels
}

// Count is how often something was sent and clicked on one day under one set of labels.
type Count struct {
	Partner string
	Day     int64  // days since 1970
	Number  uint64 // of the agreement; 0 in a partner's own figures
	Labels
	Sends, Clicks uint64
}

// AddLink stores a share link; ErrExists if the id is taken.
func (tx *Tx) AddLink(l Link) error {
	return tx.insert(`INSERT INTO links (link, partner, number, base, interface, surface, variant, recipient)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
		l.ID[:], l.Partner, int64(l.Number), l.Base, l.Interface, l.Surface, l.Variant, l.Recipient)
}

// Link reads a share link.
func (tx *Tx) Link(id [16]byte) (Link, error) {
	l := Link{ID: id}
	err := tx.one([]any{&l.Partner, &l.Number, &l.Base, &l.Interface, &l.Surface, &l.Variant, &l.Recipient},
		`SELECT partner, number, base, interface, surface, variant, recipient FROM links WHERE link = $1`, id[:])
	return l, err
}

// AddCount adds c's sends and clicks to what was counted.
func (tx *Tx) AddCount(c Count) error {
	_, err := tx.exec(`INSERT INTO report_counts (partner, day, number, interface, surface, variant, recipient, sends, clicks)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (partner, day, number, interface, surface, variant, recipient) DO UPDATE SET
		sends = report_counts.sends + excluded.sends, clicks = report_counts.clicks + excluded.clicks`,
		c.Partner, c.Day, int64(c.Number), c.Interface, c.Surface, c.Variant, c.Recipient, int64(c.Sends), int64(c.Clicks))
	return err
}

// Counts lists what was counted on the days from first to last, added up over agreements, in the order of day and labels.
func (tx *Tx) Counts(partner string, first, last int64) ([]Count, error) {
	return tx.counts(`SELECT day, interface, surface, variant, recipient, SUM(sends), SUM(clicks) FROM report_counts
		WHERE partner = $1 AND day >= $2 AND day <= $3
		GROUP BY day, interface, surface, variant, recipient`, partner, first, last)
}

// PutFigure stores a partner's own figure in the place of the one before.
func (tx *Tx) PutFigure(c Count) error {
	_, err := tx.exec(`INSERT INTO report_figures (partner, day, interface, surface, variant, recipient, sends, clicks)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (partner, day, interface, surface, variant, recipient) DO UPDATE SET sends = excluded.sends, clicks = excluded.clicks`,
		c.Partner, c.Day, c.Interface, c.Surface, c.Variant, c.Recipient, int64(c.Sends), int64(c.Clicks))
	return err
}

// Figures lists a partner's own figures on the days from first to last.
func (tx *Tx) Figures(partner string, first, last int64) ([]Count, error) {
	return tx.counts(`SELECT day, interface, surface, variant, recipient, sends, clicks FROM report_figures
		WHERE partner = $1 AND day >= $2 AND day <= $3`, partner, first, last)
}

// CountFigures says how many figures a partner handed in for the days from first to last.
func (tx *Tx) CountFigures(partner string, first, last int64) (n int, err error) {
	err = tx.one([]any{&n}, `SELECT COUNT(*) FROM report_figures WHERE partner = $1 AND day >= $2 AND day <= $3`, partner, first, last)
	return n, err
}

func (tx *Tx) counts(query, partner string, first, last int64) (list []Count, err error) {
	err = tx.list(func(scan func(...any) error) error {
		c := Count{Partner: partner}
		err := scan(&c.Day, &c.Interface, &c.Surface, &c.Variant, &c.Recipient, &c.Sends, &c.Clicks)
		list = append(list, c)
		return err
	}, query, partner, first, last)
	slices.SortFunc(list, func(a, b Count) int { // a database would sort text by its language
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.Surface, b.Surface),
			cmp.Compare(a.Variant, b.Variant), cmp.Compare(a.Recipient, b.Recipient))
	})
	return list, err
}

// AddReport keeps a report that was built. The same one again changes nothing.
func (tx *Tx) AddReport(partner string, start int64, hash [32]byte, report []byte, built int64) error {
	_, err := tx.exec(`INSERT INTO reports (partner, start, hash, report, built) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		partner, start, hash[:], report, built)
	return err
}
