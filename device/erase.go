package device

import (
	"context"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/proof"
)

// Erased says what was erased of the person's history with a partner.
type Erased struct {
	Partner  string   `json:"partner"`
	Erased   int      `json:"erased"`   // records, now
	Kept     int      `json:"kept"`     // records of permissions that stand
	Standing []string `json:"standing"` // those permissions
}

// Erasable counts the records with a partner from before a time (zero: all) that still say something. Each chain is counted up to its
// first record that is not from before, so that what is erased is a beginning without gaps.
func (c *Client) Erasable(ctx context.Context, partner string, before time.Time) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, chain := range []proof.Chain{proof.Control, proof.Access} {
		all, err := c.records(ctx, partner, chain)
		if err != nil {
			return 0, err
		}
		n += saying(all[:c.recordsBefore(all, before)])
	}
	return n, nil
}

// saying counts the records that were not erased.
func saying(list []*proof.Record) (n int) {
	for _, r := range list {
		if !r.Erased() {
			n++
		}
	}
	return n
}

// recordsBefore is how many records of a chain are from before a time; those that were erased are.
func (c *Client) recordsBefore(all []*proof.Record, before time.Time) int {
	for i, r := range all {
		if !before.IsZero() && c.describe(r).At >= before.UnixMilli() {
			return i
		}
	}
	return len(all)
}

// EraseHistory has the server delete what the records with a partner from before a time (zero: all) say, and forgets the device's own copies.
// It then reads the history again: all records are still there and follow each other, and none says anything but those kept.
func (c *Client) EraseHistory(ctx context.Context, partner string, before time.Time) (Erased, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := api.EraseRecords{Partner: partner}
	for chain, until := range map[proof.Chain]*uint64{proof.Control: &r.Control, proof.Access: &r.Access} {
		all, err := c.records(ctx, partner, chain)
		if err != nil {
			return Erased{}, err
		}
		*until = uint64(c.recordsBefore(all, before))
	}
	got, err := c.server.EraseRecords(ctx, r)
	if err != nil {
		return Erased{}, err
	}
	out := Erased{Partner: partner, Erased: got.Erased, Kept: got.Kept, Standing: []string{}}
	for _, id := range got.Standing {
		out.Standing = append(out.Standing, id.String())
	}
	if err := c.checkErased(ctx, r, got.Kept); err != nil {
		return out, err
	}
	return out, c.forgetRecords(partner)
}

// checkErased holds the server to its answer.
func (c *Client) checkErased(ctx context.Context, r api.EraseRecords, kept int) error {
	left := 0
	for chain, until := range map[proof.Chain]uint64{proof.Control: r.Control, proof.Access: r.Access} {
		all, err := c.records(ctx, r.Partner, chain)
		if err != nil {
			return err
		}
		left += saying(all[:min(until, uint64(len(all)))])
	}
	if left != kept {
		return chat.Errorf(chat.Tampered, "the server says that it kept %d records of your history with %s, and still shows what %d say", kept, c.partnerName(r.Partner), left)
	}
	return nil
}

// forgetRecords deletes the copies of access records that the device keeps; those of permissions that stand are fetched again when needed.
func (c *Client) forgetRecords(partner string) error {
	return c.state.Update(func(tx StateTx) error {
		var gone []string
		err := tx.List(bucketGrant, "", func(name string, data []byte) (bool, error) {
			if r, err := proof.ParseRecord(data); err == nil && r.Partner == partner {
				gone = append(gone, name)
			}
			return true, nil
		})
		for _, name := range gone {
			if err == nil {
				err = tx.Delete(bucketGrant, name)
			}
		}
		return err
	})
}
