package device

import (
	"context"
	"crypto/ed25519"
	"errors"

	"golang.org/x/mod/sumdb/note"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/proof"
)

// ledgerKeys is what the device pinned of the ledger, ready for use.
type ledgerKeys struct {
	trust grant.Trust
	vrf   proof.VRFKey
	log   note.Verifier

	witnesses *proof.WitnessPolicy // nil: none was pinned
}

// openLedger takes up what the device remembers of the ledger.
func (c *Client) openLedger() (err error) {
	s := c.self
	if c.policy.trust, err = proof.Trust(s.Host, ed25519.PublicKey(s.ServerKey), s.LedgerVKey, s.VRFKey); err != nil {
		return err
	}
	if c.policy.vrf, err = proof.NewVRFKey(s.VRFKey); err != nil {
		return err
	}
	if c.policy.log, err = note.NewVerifier(s.LedgerVKey); err != nil {
		return err
	}
	if err := c.openPolicy(); err != nil {
		return err
	}
	var remembered []byte
	err = c.state.View(func(tx StateTx) (err error) {
		remembered, err = tx.Get(bucketLedger, "checkpoint")
		return err
	})
	if err != nil {
		return err
	}
	c.log, err = proof.OpenLog(s.LedgerVKey, remembered)
	return err
}

// follow moves to the newest checkpoint. A ledger that contradicts what is remembered is kept as evidence.
func (c *Client) follow(ctx context.Context) error {
	return c.remember(c.log.Follow(ctx, c.server))
}

// prove waits for a leaf to be included in the ledger that this device remembers.
func (c *Client) prove(ctx context.Context, leaf proof.Hash, waitSeconds int) (index int64, tlogProof []byte, err error) {
	index, tlogProof, err = c.log.Prove(ctx, c.server, leaf, waitSeconds)
	return index, tlogProof, c.remember(err)
}

// remember keeps the newest checkpoint, or the contradiction that was found.
func (c *Client) remember(err error) error {
	if err != nil {
		if chat.Is(err, chat.Tampered) {
			var e *proof.Evidence
			var data []byte
			if errors.As(err, &e) {
				data = canon.MustMarshal([][]byte{e.Remembered, e.Shown}) // two checkpoints that the ledger signed
			}
			return c.alarm(chat.ConversationID{}, err, data)
		}
		return err
	}
	return c.state.Update(func(tx StateTx) error {
		return tx.Put(bucketLedger, "checkpoint", c.log.Checkpoint().Signed)
	})
}

// alarm keeps evidence of a lie, and stops the conversation that it concerns. It returns the error to show.
func (c *Client) alarm(id chat.ConversationID, cause error, data []byte) error {
	err := c.state.Update(func(tx StateTx) error {
		if err := c.keepEvidence(tx, id, cause.Error(), data); err != nil || id.IsZero() {
			return err
		}
		var conv conversation
		if _, err := load(tx, bucketConversation, id.String(), &conv); err != nil {
			return err
		}
		conv.ID, conv.Broken = id, cause.Error()
		return save(tx, bucketConversation, id.String(), conv)
	})
	if err != nil {
		return chat.Wrap(chat.Tampered, err, "%v (and the evidence could not be kept)", cause)
	}
	return cause
}
