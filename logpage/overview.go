package logpage

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"letterlock/proof"
)

// Overview is the whole log as its page shows it. Times are milliseconds since 1970.
type Overview struct {
	Host         string     `json:"host"`
	PublicURL    string     `json:"public_url"`
	LedgerVKey   string     `json:"ledger_vkey"`
	ServerKey    Hash       `json:"server_key"`
	Size         int64      `json:"size"`
	Public       uint64     `json:"public_entries"`
	Root         Hash       `json:"root"`
	CheckpointAt int64      `json:"checkpoint_at"` // when its map root was logged, by the server's clock
	Checkpoint   string     `json:"checkpoint"`    // signed note
	Policy       string     `json:"policy"`        // tlog-policy; empty: none was logged
	Quorum       bool       `json:"quorum"`        // the policy's, on this checkpoint
	Witnesses    []*Witness `json:"witnesses"`
	Partners     []*Partner `json:"partners"`
	Releases     []Release  `json:"releases"`
	Unread       []int64    `json:"unread"` // indexes of public entries that this server's version cannot read

	now int64
}

// Witness is a witness or auditor of the policy.
type Witness struct {
	Name        string `json:"name"` // of its key
	VKey        string `json:"vkey"`
	OperatorRun bool   `json:"operator_run"`        // its key says that the log's own operator holds it: not independent
	SignedAt    int64  `json:"signed_at,omitempty"` // 0: not this checkpoint
}

// staleAfter is the age of a checkpoint that nobody should rely on (spec/witness.md section 2).
const staleAfter = time.Hour

// Age is how old the checkpoint is by the server's clock.
func (o *Overview) Age() string { return agoText(o.now, o.CheckpointAt) }

// SignedAgo is how long ago a time was when the page was made.
func (o *Overview) SignedAgo(at int64) string { return agoText(o.now, at) }

// Stale reports whether the checkpoint is too old to rely on.
func (o *Overview) Stale() bool { return o.now-o.CheckpointAt > staleAfter.Milliseconds() }

// Independent counts the witnesses that signed and do not say that the operator runs them.
func (o *Overview) Independent() (n int) {
	for _, w := range o.Witnesses {
		if w.SignedAt > 0 && !w.OperatorRun {
			n++
		}
	}
	return n
}

// Signed counts the witnesses that signed.
func (o *Overview) Signed() (n int) {
	for _, w := range o.Witnesses {
		if w.SignedAt > 0 {
			n++
		}
	}
	return n
}

// Standing is the number of partners with an agreement in force.
func (o *Overview) Standing() (n int) {
	for _, p := range o.Partners {
		if p.State == InForce {
			n++
		}
	}
	return n
}

// overview reads what is new in the log and says how everything stands.
func (p *pages) overview(ctx context.Context) (*Overview, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	tree, err := p.readOn(ctx)
	if err != nil {
		return nil, err
	}
	now := p.Now().UnixMilli()
	o := &Overview{Host: p.Host, PublicURL: p.PublicURL, LedgerVKey: p.LedgerVKey, ServerKey: Hash(p.ServerKey), Size: tree.Checkpoint.Size,
		Public: tree.Public, Root: tree.Checkpoint.Root, CheckpointAt: tree.At, Checkpoint: string(tree.Checkpoint.Signed), Witnesses: []*Witness{},
		Partners: p.record.partners(now), Releases: append([]Release{}, p.record.releases...), Unread: append([]int64{}, p.record.unread...), now: now}
	return o, o.witnessed(p.record.policies)
}

// readOn reads the public entries that were not there the last time, and returns the map of the tree that holds all of them.
func (p *pages) readOn(ctx context.Context) (proof.Map, error) {
	for {
		head, entries, err := p.Source(ctx, p.record.read)
		if err != nil {
			return proof.Map{}, err
		}
		tree, err := head.Open(p.verifier)
		if err != nil {
			return proof.Map{}, err
		}
		for _, e := range entries {
			p.record.add(e, &p.Config)
		}
		if p.record.read >= tree.Public || len(entries) == 0 {
			return tree, nil
		}
	}
}

// witnessed finds the policy under which the checkpoint was published: the newest whose quorum it has, since a tree that holds a new policy has
// the quorum of the one before. Without any quorum it shows the newest one.
func (o *Overview) witnessed(policies []*proof.WitnessPolicy) error {
	for i := len(policies) - 1; i >= 0; i-- {
		_, signed, err := policies[i].Open([]byte(o.Checkpoint))
		if err != nil {
			return err
		}
		quorum := policies[i].Quorum(signed)
		if quorum || o.Policy == "" {
			o.Policy, o.Quorum, o.Witnesses = policies[i].String(), quorum, o.signers(policies[i], signed)
		}
		if quorum {
			break
		}
	}
	return nil
}

func (o *Overview) signers(p *proof.WitnessPolicy, signed []proof.Cosignature) []*Witness {
	list := []*Witness{}
	for _, w := range p.Witnesses() {
		shown := &Witness{Name: w.KeyName(), VKey: w.VKey, OperatorRun: proof.OperatorRun(w.KeyName(), o.Host)}
		for _, s := range signed {
			if s.Witness.VKey == w.VKey {
				shown.SignedAt = s.At
			}
		}
		list = append(list, shown)
	}
	return list
}

// agoText says how long before now a time was, to the unit that matters.
func agoText(now, at int64) string {
	d := time.Duration(now-at) * time.Millisecond
	switch {
	case d < 2*time.Second:
		return "just now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

// numberText groups digits by three.
func numberText[T int64 | uint64](n T) string {
	s := strconv.FormatUint(uint64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
