package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"letterlock/chat"
	"letterlock/proof"
)

// freshness is how far the newest checkpoint may be from the device's clock: the server has it signed anew every ten minutes
// (spec/witness.md section 2) and logs a map root every half hour (spec/map.md section 4).
const freshness = time.Hour

// errStale is the cause of an error that says the shown ledger is too old. It may be a lie, or a server whose witnesses are away.
var errStale = errors.New("the newest checkpoint is too old")

// head takes a map root that the server shows: it must continue the ledger that this device remembers, have the pinned policy's quorum
// and be fresh. What is proven against it is proven against the newest ledger there is, as far as witnesses and clocks tell.
func (c *Client) head(ctx context.Context, data []byte) (proof.Map, error) {
	m, err := c.openHead(ctx, data)
	if err != nil {
		return m, err
	}
	at, err := c.witnessed(ctx, m)
	if err != nil {
		return m, err
	}
	if age := c.now().Sub(time.UnixMilli(at)); age > freshness || age < -freshness {
		return m, chat.Wrap(chat.Unproven, errStale, "the server shows an old ledger: its newest checkpoint is of %s, %s by this device's clock",
			time.UnixMilli(at).UTC().Format("2 January 2006 15:04 UTC"), away(age))
	}
	return m, nil
}

func away(age time.Duration) string {
	if age < 0 {
		return fmt.Sprintf("%s from now", (-age).Round(time.Minute))
	}
	return fmt.Sprintf("%s ago", age.Round(time.Minute))
}

// openHead moves to the checkpoint of a map root.
func (c *Client) openHead(ctx context.Context, data []byte) (proof.Map, error) {
	h, err := proof.ParseHead(data)
	if err != nil {
		return proof.Map{}, err
	}
	m, err := h.Open(c.policy.log)
	if err != nil {
		return m, err
	}
	return m, c.remember(c.log.MoveTo(ctx, c.server, m.Checkpoint.Signed))
}

// witnessed is when the checkpoint was seen by the quorum of the policy in force; where no witness is asked for, the server's own time.
func (c *Client) witnessed(ctx context.Context, m proof.Map) (int64, error) {
	at, err := c.quorumTime(m)
	if err == nil {
		return at, nil
	}
	if err := c.followPolicies(ctx); err != nil {
		return 0, err
	}
	return c.quorumTime(m)
}

func (c *Client) quorumTime(m proof.Map) (int64, error) {
	p := c.policy.witnesses
	if p == nil || !p.NeedsQuorum() {
		return m.At, nil
	}
	_, signed, err := p.Check(m.Checkpoint.Signed)
	if err != nil {
		return 0, err
	}
	slices.SortFunc(signed, func(a, b proof.Cosignature) int { return int(b.At - a.At) })
	for n := range signed {
		if p.Quorum(signed[:n+1]) {
			return signed[n].At, nil
		}
	}
	return 0, chat.Errorf(chat.Internal, "a quorum without signatures")
}

// openPolicy takes up the policy that the device pinned; there may be none.
func (c *Client) openPolicy() error {
	var text []byte
	err := c.state.View(func(tx StateTx) (err error) {
		text, err = tx.Get(bucketLedger, "policy")
		return err
	})
	if err != nil || text == nil {
		return err
	}
	c.policy.witnesses, err = proof.ParsePolicy(text)
	return err
}

// pinPolicy makes a policy the one that checkpoints are held against.
func (c *Client) pinPolicy(p *proof.WitnessPolicy) error {
	if p.LogVKey() != c.self.LedgerVKey {
		return chat.Errorf(chat.Invalid, "the policy is of another ledger than this server's")
	}
	c.policy.witnesses = p
	return c.state.Update(func(tx StateTx) error { return tx.Put(bucketLedger, "policy", []byte(p.String())) })
}

// firstPolicy pins the policy that the person gave, or else the newest one that the ledger holds now: then that is trusted on first use.
func (c *Client) firstPolicy(ctx context.Context) error {
	if c.pin == nil {
		return c.followPolicies(ctx)
	}
	p, err := proof.ParsePolicy(c.pin)
	if err != nil {
		return err
	}
	return c.pinPolicy(p)
}

// WitnessPolicy is the policy that checkpoints are held against; empty if there is none.
func (c *Client) WitnessPolicy() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.policy.witnesses == nil {
		return ""
	}
	return c.policy.witnesses.String()
}

// followPolicies moves from the pinned policy to the newest one that the ledger holds. Each one but the first must be signed off by the
// quorum of the one before.
func (c *Client) followPolicies(ctx context.Context) error {
	rows, err := c.server.Policies(ctx)
	if err != nil && !chat.Is(err, chat.NotFound) { // a server that never had witnesses
		return err
	}
	var row []proof.Handoff
	var last []byte
	for _, r := range rows {
		row, last = append(row, proof.Handoff{Leaf: r.Leaf, Proof: r.Proof}), r.Proof
	}
	list, err := proof.OpenHandoffs(c.policy.log, row)
	if err != nil {
		return c.alarm(chat.ConversationID{}, chat.Wrap(chat.Tampered, err, "the server shows a witness policy that the one before did not sign off"), last)
	}
	next, err := proof.InForce(c.policy.witnesses, list)
	if err != nil || next.Same(c.policy.witnesses) {
		return nil // a pinned policy that was never logged has no way on
	}
	return c.pinPolicy(next)
}
