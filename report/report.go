// Package report counts what partners' apps send and how often it is followed, and makes the report that an agreement asks for
// (spec/report.md).
//
//	link.go      share links: made, followed, counted
//	report.go    counting, the partner's own figures, building a report
//	withhold.go  what of the counts may be shown
//
// Neighbours: inbox decides who may call and counts sends in the transaction of the post; ledger holds the hash of each report; store
// keeps counts. It knows days, labels and kinds of recipient. It stores nothing about who sent, who received or who clicked, and shows
// no count below the threshold, nor what it could be computed from.
package report

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"slices"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/store"
)

const (
	// Days is how many days a report covers.
	Days = 14
	// DefaultThreshold is the smallest count that is shown.
	DefaultThreshold = 5

	maxThreshold = 1_000_000
	maxFigures   = 100_000 // of one partner in a year
	maxFigure    = 1 << 40
	dayFormat    = time.DateOnly
	dayMS        = 24 * 3600 * 1000
)

// Labels say what a send or a click is counted under.
type Labels struct {
	Interface, Surface, Variant string
	Recipient                   api.Recipient
}

func (l Labels) row() store.Labels {
	return store.Labels{Interface: l.Interface, Surface: l.Surface, Variant: l.Variant, Recipient: string(l.Recipient)}
}

// Service is safe for concurrent use.
type Service struct {
	Store     *store.Store
	Ledger    *ledger.Ledger
	PublicURL string
	Now       func() time.Time
	Rand      io.Reader // of link ids
}

// Sent counts a post, within the transaction that appends it.
func (s *Service) Sent(tx *store.Tx, a *grant.Agreement, at int64, l Labels) error {
	return tx.AddCount(store.Count{Partner: a.Partner, Day: at / dayMS, Number: a.Number, Labels: l.row(), Sends: 1})
}

// PutFigures stores a partner's own figures.
func (s *Service) PutFigures(tx *store.Tx, a *grant.Agreement, r api.InboxFigures) error {
	if len(r.Figures) > api.MaxFigures {
		return chat.Errorf(chat.TooLarge, "at most %d figures in one call", api.MaxFigures)
	}
	today := s.Now().UnixMilli() / dayMS
	for _, f := range r.Figures {
		day, err := parseDay(f.Day)
		if err != nil {
			return err
		}
		if day > today+1 || day < today-366 {
			return chat.Errorf(chat.Invalid, "figures are for days of the last year")
		}
		if err := checkFigure(a, f); err != nil {
			return err
		}
		labels := Labels{f.Interface, f.Surface, f.Variant, f.Recipient}
		if err := tx.PutFigure(store.Count{Partner: a.Partner, Day: day, Labels: labels.row(), Sends: f.Sends, Clicks: f.Clicks}); err != nil {
			return err
		}
	}
	n, err := tx.CountFigures(a.Partner, today-366, today+1)
	if err == nil && n > maxFigures {
		return chat.Errorf(chat.TooMany, "at most %d figures in a year", maxFigures)
	}
	return err
}

func checkFigure(a *grant.Agreement, f api.Figure) error {
	if err := CheckLabels(a, f.Interface, f.Surface, f.Variant); err != nil {
		return err
	}
	if f.Sends > maxFigure || f.Clicks > maxFigure {
		return chat.Errorf(chat.Invalid, "a figure is too large")
	}
	if !slices.Contains([]api.Recipient{api.RecipientUser, api.RecipientNoUser, api.RecipientNotTold, api.RecipientSeveral}, f.Recipient) {
		return chat.Errorf(chat.Invalid, "recipient: use user, no-user, not-told or several")
	}
	return nil
}

// CheckLabels wants each label to be one of those that the agreement lists, or empty.
func CheckLabels(a *grant.Agreement, iface, surface, variant string) error {
	for _, c := range []struct {
		what, label string
		listed      []string
	}{{"interface", iface, a.Interfaces}, {"surface", surface, a.Surfaces}, {"variant", variant, a.Variants}} {
		if c.label != "" && !slices.Contains(c.listed, c.label) {
			return chat.Errorf(chat.Invalid, "the agreement lists no such %s", c.what)
		}
	}
	return nil
}

func parseDay(day string) (int64, error) {
	t, err := time.Parse(dayFormat, day)
	if err != nil || t.Unix() < 0 {
		return 0, chat.Errorf(chat.Invalid, "a day reads like 2006-01-02")
	}
	return t.UnixMilli() / dayMS, nil
}

func dayText(day int64) string { return time.UnixMilli(day * dayMS).UTC().Format(dayFormat) }

// Build makes the report of the fourteen days from the one that is asked for, and queues its hash for the ledger. Built again with the same
// counts it is the same report.
func (s *Service) Build(ctx context.Context, a *grant.Agreement, q api.ReportQuery) (api.BuiltReport, error) {
	first, err := s.firstDay(a, q.From)
	if err != nil {
		return api.BuiltReport{}, err
	}
	threshold := q.Threshold
	if threshold == 0 {
		threshold = DefaultThreshold
	}
	if threshold > maxThreshold {
		return api.BuiltReport{}, chat.Errorf(chat.Invalid, "the threshold is too large")
	}
	var out api.BuiltReport
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		counts, err := tx.Counts(a.Partner, first, first+Days-1)
		if err != nil {
			return err
		}
		figures, err := tx.Figures(a.Partner, first, first+Days-1)
		if err != nil {
			return err
		}
		out.Report, err = json.Marshal(assemble(a, first, threshold, counts, figures))
		if err != nil {
			return err
		}
		return s.keep(tx, a.Partner, first*dayMS, &out)
	})
	if err == nil {
		s.Ledger.Notify()
	}
	return out, err
}

// keep stores a report and queues its leaf.
func (s *Service) keep(tx *store.Tx, partner string, start int64, r *api.BuiltReport) error {
	hash := sha256.Sum256(r.Report)
	if err := tx.AddReport(partner, start, hash, r.Report, s.Now().UnixMilli()); err != nil {
		return err
	}
	leaf, err := s.Ledger.Public(tx, &proof.Report{Partner: partner, Start: start, Report: hash})
	r.Hash, r.Leaf = hash[:], leaf[:]
	return err
}

// firstDay is the day that was asked for, or the first of the fourteen days, counted from the agreement's first day, that today is in.
func (s *Service) firstDay(a *grant.Agreement, from string) (int64, error) {
	if from != "" {
		return parseDay(from)
	}
	begun, today := a.NotBefore/dayMS, s.Now().UnixMilli()/dayMS
	if today < begun {
		return begun, nil
	}
	return today - (today-begun)%Days, nil
}
