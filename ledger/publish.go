package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/witness"
)

const (
	witnessTime = 5 * time.Second  // a witness that has not answered by then counts as absent in this round
	freshTime   = 10 * time.Minute // how often the published tree is signed anew when nothing grows
	wantedTime  = 5 * time.Second  // how often the witnesses of a policy that is not in the log yet are asked

	// QuorumWait is how long an entry may wait for witnesses before partners' reads stop (spec/witness.md section 2).
	QuorumWait = 30 * time.Second
)

// Where a log has a witness policy, what its transactions integrate is not published yet: readers get the tree of table
// ledger_published, and the Publisher moves that on when the policy's quorum has signed a newer one. Policies stand in table
// ledger_policies. One without a proof was logged and is not published yet; the last one with a proof is in force.

// witnessing is what the database says of policies and published trees, at one moment.
type witnessing struct {
	integrated store.LedgerState
	published  store.LedgerState // Size 0: the log has no policy, and integrated is published
	policies   []loggedPolicy
}

type loggedPolicy struct {
	store.LedgerPolicy
	policy *proof.WitnessPolicy
	index  int64 // in the log; -1: it waits in the outbox
}

func (l *Ledger) witnessing(tx *store.Tx) (w witnessing, err error) {
	if w.integrated, err = tx.LedgerState(l.origin()); err != nil {
		return w, err
	}
	if w.published, err = tx.LedgerPublished(l.origin()); err != nil && !errors.Is(err, store.ErrNotFound) {
		return w, err
	}
	rows, err := tx.LedgerPolicies()
	if err != nil {
		return w, err
	}
	for _, row := range rows {
		p := loggedPolicy{LedgerPolicy: row, index: -1}
		leaf, err := proof.ParseLeaf(row.Leaf)
		said, ok := leaf.(*proof.Policy)
		if err == nil && ok {
			p.policy, err = proof.ParsePolicy([]byte(said.Text))
		}
		if err != nil || !ok {
			return w, chat.Wrap(chat.Tampered, err, "a stored witness policy is damaged")
		}
		entry, err := tx.LedgerLeafByHash(proof.LeafHash(row.Leaf))
		if err == nil {
			p.index = entry.Index
		} else if !errors.Is(err, store.ErrNotFound) {
			return w, err
		}
		w.policies = append(w.policies, p)
	}
	return w, nil
}

// inForce is the policy of the published tree; nil if it has none.
func (w *witnessing) inForce() (p *proof.WitnessPolicy) {
	for i := range w.policies {
		if len(w.policies[i].Proof) > 0 {
			p = w.policies[i].policy
		}
	}
	return p
}

// pending is the policy that was logged and is not published yet; nil if there is none.
func (w *witnessing) pending() *loggedPolicy {
	if n := len(w.policies); n > 0 && len(w.policies[n-1].Proof) == 0 {
		return &w.policies[n-1]
	}
	return nil
}

// required is what a tree of that size needs: the quorum of the policy in force, and where the tree is the first to hold another one, of that
// one too, so that its readers have a quorum under either. nil: the log's signature.
func (w *witnessing) required(size int64) *proof.WitnessPolicy {
	p := w.inForce()
	if next := w.pending(); next != nil && next.index >= 0 && next.index < size {
		return p.And(next.policy)
	}
	return p
}

// publishCosigned makes a cosigned checkpoint the one that readers get, if it has the quorum that it needs, the log contains its tree, and it is not smaller than
// what is published. It hands over to a policy that the tree is the first to hold.
func (l *Ledger) publishCosigned(tx *store.Tx, signed []byte) error {
	w, err := l.witnessing(tx)
	if err != nil {
		return err
	}
	c, err := proof.OpenCheckpoint(signed, l.verifier)
	if err != nil {
		return err
	}
	if p := w.required(c.Size); p != nil {
		if c, _, err = p.Check(signed); err != nil {
			return err
		}
	}
	if c.Size < w.published.Size {
		return chat.Errorf(chat.Unavailable, "a larger tree was published in the meantime")
	}
	if err := l.covers(tx, c); err != nil {
		return err
	}
	next := store.LedgerState{Size: c.Size, Root: c.Root, Checkpoint: signed}
	err = tx.SwapLedgerPublished(l.origin(), w.published, next)
	if errors.Is(err, store.ErrExists) {
		return chat.Wrap(chat.Unavailable, err, "another publisher was faster")
	}
	if err != nil {
		return err
	}
	return l.handOver(tx, &w, next)
}

// handOver puts a policy into force with the tree that was just published.
func (l *Ledger) handOver(tx *store.Tx, w *witnessing, s store.LedgerState) error {
	next := w.pending()
	if next == nil || next.index < 0 || next.index >= s.Size {
		return nil
	}
	_, text, err := snapshot{s, openTree(tx, s.Size), l}.prove(proof.LeafHash(next.Leaf))
	if err != nil {
		return err
	}
	return tx.PutLedgerPolicyProof(next.N, text)
}

// logPolicy makes a policy the next one of the log: its leaf is queued, and from here on nothing newer than now is published before a tree
// holds it that the policy in force has signed off.
func (l *Ledger) logPolicy(tx *store.Tx, p *proof.WitnessPolicy) error {
	w, err := l.witnessing(tx)
	if err != nil {
		return err
	}
	if w.pending() != nil || w.inForce().Same(p) {
		return nil
	}
	n := int64(len(w.policies))
	leaf := &proof.Policy{Text: p.String()}
	if n > 0 { // a policy may come back, a leaf does not
		leaf.Text = fmt.Sprintf("# policy %d\n%s", n, p)
	}
	if n == 0 {
		if err := tx.SwapLedgerPublished(l.origin(), store.LedgerState{}, w.integrated); err != nil {
			return err
		}
	}
	if _, err := l.Public(tx, leaf); err != nil {
		return err
	}
	return tx.AddLedgerPolicy(n, leaf.Bytes())
}

// Policies are the witness policies that were published, oldest first, each with the proof that the quorum before it signed it off.
func (l *Ledger) Policies(ctx context.Context) (list []proof.Handoff, err error) {
	list = []proof.Handoff{}
	err = l.read(ctx, func(tx *store.Tx, _ snapshot) error {
		rows, err := tx.LedgerPolicies()
		for _, row := range rows {
			if len(row.Proof) > 0 {
				list = append(list, proof.Handoff{Leaf: row.Leaf, Proof: row.Proof})
			}
		}
		return err
	})
	return list, err
}

func (l *Ledger) servePolicies(w http.ResponseWriter, r *http.Request) error {
	list, err := l.Policies(r.Context())
	if err != nil {
		return err
	}
	type row struct {
		Leaf  []byte `json:"leaf"`
		Proof []byte `json:"proof"`
	}
	rows := make([]row, len(list))
	for i, h := range list {
		rows[i] = row(h)
	}
	body, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	return answer(w, "application/json", changing, body)
}

// checkPublished holds what is published against the log and the policy in force.
func (l *Ledger) checkPublished(tx *store.Tx) error {
	w, err := l.witnessing(tx)
	if err != nil || w.published.Size == 0 {
		return err
	}
	c, err := proof.OpenCheckpoint(w.published.Checkpoint, l.verifier)
	if p := w.inForce(); err == nil && p != nil {
		c, _, err = p.Check(w.published.Checkpoint)
	}
	if err == nil && (c.Size != w.published.Size || c.Root != w.published.Root) {
		err = chat.Errorf(chat.Tampered, "the published checkpoint is of another tree than it is filed under")
	}
	return errors.Join(err, l.covers(tx, c))
}

// behind is how far the published tree is behind what was integrated.
type behind struct {
	mu      sync.Mutex
	entries int64     // that wait for a quorum
	since   time.Time // when the oldest of them began to
	told    bool      // that there is no quorum
}

// Quorum says whether new entries are published: chat.NoQuorum once one has waited for QuorumWait.
func (l *Ledger) Quorum() error {
	b := &l.behind
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.entries == 0 || l.now().Sub(b.since) < QuorumWait {
		return nil
	}
	return noQuorum()
}

func noQuorum() error {
	e := chat.Errorf(chat.NoQuorum, "the witnesses of this server's public ledger do not sign, so that nothing new can be proven: apps cannot read until they do; people's "+
		"messages and revocations go on")
	e.Retry = QuorumWait
	return e
}

// unsigned says of a leaf that was not found why: it is in the log and waits for witnesses, or the error that was.
func (l *Ledger) unsigned(ctx context.Context, leaf proof.Hash, absent error) error {
	if l.Waiting() == 0 {
		return absent
	}
	err := l.store.View(ctx, func(tx *store.Tx) error {
		_, err := tx.LedgerLeafByHash(leaf)
		return err
	})
	if err != nil {
		return absent
	}
	return noQuorum()
}

// Waiting is how many entries of the log wait for a quorum.
func (l *Ledger) Waiting() int64 {
	l.behind.mu.Lock()
	defer l.behind.mu.Unlock()
	return l.behind.entries
}

// Publisher moves the published tree on. One runs beside each Writer; where a log has no policy and none is wanted it does nothing.
type Publisher struct {
	ledger *Ledger
	wanted *proof.WitnessPolicy // nil: that in force stays
	client witness.Client
	log    *slog.Logger

	force  *proof.WitnessPolicy // what was last seen in force
	signed time.Time            // of the log's clock: when a quorum last signed
	last   time.Time            // of the last step
	tried  time.Time            // when the wanted policy's witnesses were last asked

	mu    sync.Mutex
	asked map[string]*asked // by vkey
	late  sync.WaitGroup    // those who are still being asked
}

// asked is what is known of one witness.
type asked struct {
	mu      sync.Mutex // held while it is asked
	known   int64      // the size that it signed last; 0: not known
	failing string     // what was last logged about it
}

// NewPublisher makes a publisher. wanted, if it is not nil, becomes the log's policy, as soon as its own quorum and that of the policy in
// force sign. One that is for another log is chat.Invalid.
func NewPublisher(l *Ledger, wanted *proof.WitnessPolicy, log *slog.Logger) (*Publisher, error) {
	if wanted != nil && wanted.LogVKey() != l.keys.vkey {
		return nil, chat.Errorf(chat.Invalid, "the witness policy is for another log: its log line must be \"log %s\"", l.keys.vkey)
	}
	return &Publisher{ledger: l, wanted: wanted, log: log, asked: map[string]*asked{}}, nil
}

// Run publishes until the context ends.
func (p *Publisher) Run(ctx context.Context) {
	defer p.late.Wait()
	timer := time.NewTicker(pollTime)
	defer timer.Stop()
	for {
		news := p.ledger.news()
		err := p.Step(ctx)
		if err != nil && ctx.Err() == nil && !chat.Is(err, chat.NoQuorum) && store.DiskError(err) == nil {
			p.log.Warn("the ledger could not publish; it tries again", slog.Any("error", err))
		}
		if err != nil {
			news = nil // not at once
		}
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-timer.C:
		}
	}
}

// Step asks the witnesses once, if there is something to ask, and publishes what a quorum signed; chat.NoQuorum if none did.
func (p *Publisher) Step(ctx context.Context) error {
	l, start := p.ledger, p.ledger.now()
	var w witnessing
	began := start // when the oldest entry that waits began to, as far as the log shows it
	err := l.store.View(ctx, func(tx *store.Tx) (err error) {
		if w, err = l.witnessing(tx); err == nil && p.last.IsZero() {
			began, err = l.began(tx, &w, start)
		}
		return err
	})
	if err != nil {
		return err
	}
	p.note(&w, start, began)
	r := round{required: w.required(w.integrated.Size), target: w.integrated, start: start}
	r.publish = w.published.Size > 0 && (w.integrated.Size > w.published.Size || r.required.NeedsQuorum() && start.Sub(p.signed) >= freshTime)
	if p.wants(&w) && start.Sub(p.tried) >= wantedTime {
		r.wanted, p.tried = p.wanted, start
	}
	if !r.publish && r.wanted == nil {
		return nil
	}
	return p.round(ctx, &r)
}

// began is when the oldest entry that waits for a quorum was integrated: the time of the map root that follows it. A restart does not make
// the wait begin anew.
func (l *Ledger) began(tx *store.Tx, w *witnessing, now time.Time) (time.Time, error) {
	if w.published.Size == 0 || w.published.Size == w.integrated.Size {
		return now, nil
	}
	leaves, err := tx.LedgerLeaves(w.published.Size, batchSize+1)
	for _, row := range leaves {
		leaf, err := proof.ParseLeaf(row.Leaf)
		if root, ok := leaf.(*proof.MapRoot); err == nil && ok {
			return time.UnixMilli(root.At), nil
		}
	}
	return now, err
}

// wants reports whether the wanted policy must still be logged.
func (p *Publisher) wants(w *witnessing) bool {
	return p.wanted != nil && w.pending() == nil && !w.inForce().Same(p.wanted)
}

// note keeps how long what waits has waited, and says once that it does. A first policy that its witnesses do not sign counts as waiting.
func (p *Publisher) note(w *witnessing, now, began time.Time) {
	b := &p.ledger.behind
	b.mu.Lock()
	b.entries = 0
	if w.published.Size > 0 {
		b.entries = w.integrated.Size - w.published.Size
	} else if p.wants(w) {
		b.entries = 1
	}
	if b.entries == 0 || p.last.IsZero() {
		b.since = began
	}
	p.last = now
	b.mu.Unlock()
	if force := w.inForce(); !force.Same(p.force) {
		p.force = force
		p.log.Info("a witness policy is in force", slog.Int("witnesses", len(force.Witnesses())), slog.Bool("quorum", force.NeedsQuorum()))
	}
	none := p.ledger.Quorum() != nil
	if none && !b.told {
		p.log.Error("the ledger has no quorum of witnesses: nothing new is published, and partners' reads stop", slog.Int64("waiting", p.ledger.Waiting()))
	}
	if !none && b.told {
		p.log.Info("the ledger has a quorum again")
	}
	b.told = none
}

// round is one asking of all witnesses about one tree.
type round struct {
	target   store.LedgerState
	start    time.Time
	required *proof.WitnessPolicy // what publishing needs
	publish  bool                 // the tree is to be published
	wanted   *proof.WitnessPolicy // to be logged once its quorum signed; nil: none
	lines    []string             // cosignatures that came
}

func (p *Publisher) round(ctx context.Context, r *round) error {
	all := r.required.And(r.wanted)
	answers := make(chan string)
	asking := 0
	for _, w := range all.Witnesses() {
		if w.URL != "" {
			asking++
			p.late.Go(func() { answers <- p.ask(ctx, all, w, r.target) })
		}
	}
	var err error
	for {
		if err = p.settle(ctx, r); err != nil || asking == 0 || !r.publish && r.wanted == nil {
			break
		}
		r.lines = append(r.lines, <-answers)
		asking--
	}
	p.late.Go(func() { p.rest(context.WithoutCancel(ctx), r.target, answers, asking) })
	if err == nil && (r.publish || r.wanted != nil) {
		err = chat.Errorf(chat.NoQuorum, "the witnesses do not sign")
	}
	return err
}

// settle does what the cosignatures are enough for.
func (p *Publisher) settle(ctx context.Context, r *round) error {
	l := p.ledger
	if r.wanted != nil && enough(r.wanted, r) {
		if err := l.store.Update(ctx, func(tx *store.Tx) error { return l.logPolicy(tx, r.wanted) }); err != nil {
			return err
		}
		r.wanted = nil
		l.Notify()
	}
	if !r.publish || !enough(r.required, r) {
		return nil
	}
	signed, err := cosigned(r.required, r)
	if err != nil {
		return err
	}
	if err := l.store.Update(ctx, func(tx *store.Tx) error { return l.publishCosigned(tx, signed) }); err != nil {
		return err
	}
	r.publish, p.signed = false, r.start
	l.behind.mu.Lock()
	l.behind.since = r.start // what this tree does not hold was integrated later
	l.behind.mu.Unlock()
	l.announce()
	return nil
}

// cosigned is the round's checkpoint with what came for a policy.
func cosigned(policy *proof.WitnessPolicy, r *round) ([]byte, error) {
	if policy == nil {
		return r.target.Checkpoint, nil
	}
	return policy.Cosigned(r.target.Checkpoint, r.lines...)
}

func enough(policy *proof.WitnessPolicy, r *round) bool {
	signed, err := cosigned(policy, r)
	if err == nil && policy != nil {
		_, _, err = policy.Check(signed)
	}
	return err == nil
}

// ask has one witness sign a tree and returns its line, checked; empty if it did not sign, or is still busy with an earlier tree.
func (p *Publisher) ask(ctx context.Context, policy *proof.WitnessPolicy, w proof.PolicyWitness, s store.LedgerState) string {
	p.mu.Lock()
	a := p.asked[w.VKey]
	if a == nil {
		a = &asked{}
		p.asked[w.VKey] = a
	}
	p.mu.Unlock()
	if !a.mu.TryLock() {
		return ""
	}
	defer a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, witnessTime)
	defer cancel()
	line, err := p.client.Cosign(ctx, w.URL, s.Checkpoint, s.Size, a.known, p.ledger.consistency)
	if err == nil {
		if _, err = policy.Cosigned(s.Checkpoint, line); err == nil {
			a.known = s.Size
		}
	}
	p.tell(a, w, err)
	if err != nil {
		return ""
	}
	return line
}

// tell logs what a witness does when that changes.
func (p *Publisher) tell(a *asked, w proof.PolicyWitness, err error) {
	said := ""
	if err != nil {
		said = string(chat.KindOf(err))
	}
	if said == a.failing {
		return
	}
	a.failing = said
	switch {
	case err == nil:
		p.log.Info("a witness signs again", slog.String("witness", w.KeyName()))
	case chat.Is(err, chat.Tampered):
		p.log.Error("ALARM: a witness refuses this log", slog.String("witness", w.KeyName()), slog.Any("error", err))
	default:
		p.log.Warn("a witness does not sign", slog.String("witness", w.KeyName()), slog.Any("error", err))
	}
}

// rest adds cosignatures that come after the quorum to the tree that was published.
func (p *Publisher) rest(ctx context.Context, s store.LedgerState, answers <-chan string, asking int) {
	l := p.ledger
	for range asking {
		line := <-answers
		if line == "" {
			continue
		}
		err := l.store.Update(ctx, func(tx *store.Tx) error {
			w, err := l.witnessing(tx)
			if err != nil || w.published.Root != s.Root || w.published.Size != s.Size || w.inForce() == nil {
				return err
			}
			signed, err := w.inForce().Cosigned(w.published.Checkpoint, line)
			if err != nil || bytes.Equal(signed, w.published.Checkpoint) {
				return err
			}
			return l.publishCosigned(tx, signed)
		})
		if err != nil {
			p.log.Warn("a late cosignature was not kept", slog.Any("error", err))
		}
	}
}

// consistency proves that the integrated tree of one size contains that of another.
func (l *Ledger) consistency(ctx context.Context, from, to int64) (list []proof.Hash, err error) {
	err = l.store.View(ctx, func(tx *store.Tx) error {
		s, err := tx.LedgerState(l.origin())
		if err != nil {
			return err
		}
		p, err := tlog.ProveTree(to, from, openTree(tx, s.Size))
		list = plainHashes(p)
		return err
	})
	return list, err
}
