package proof

import (
	"crypto/ed25519"
	"slices"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
)

// This file is where a bundle meets packages keychain and grant: whose signature a control record needs, and what it says.

// controlEntry is what a control record says, its signature checked. Exactly one of the pointers is set, none if it was erased.
type controlEntry struct {
	grant    *grant.Grant
	hash     grant.Hash // of the signed grant
	narrow   *grant.Narrowing
	revoke   *grant.Revocation
	byStolen bool // the signing device was later removed as stolen
}

// grants checks what every control record holds.
func (v *verification) grants() error {
	for i, r := range v.control {
		p, err := r.Says()
		if err != nil {
			return err
		}
		entry, err := v.open(p)
		if err != nil {
			return chat.Wrap(chat.Unproven, err, "record %d of control does not hold", i)
		}
		if !entry.belongs(v.bundle, r.N) {
			return unproven("record %d of control holds what was signed for another account, partner or number", i)
		}
		v.entries = append(v.entries, entry)
	}
	return nil
}

func (v *verification) open(p Payload) (controlEntry, error) {
	switch p := p.(type) {
	case nil:
		return controlEntry{}, nil
	case *Grant:
		return v.openGrant(p.Signed)
	case *Narrow:
		return v.openNarrowing(p.Signed)
	case *Revoke:
		return v.openRevocation(p.Signed)
	}
	return controlEntry{}, invalid("not a control payload")
}

// openGrant checks a grant under the key that its device had at the version of the key chain that the grant names, and against the
// agreement that it stands on.
func (v *verification) openGrant(signed []byte) (controlEntry, error) {
	claim, err := grant.Peek(signed)
	if err != nil {
		return controlEntry{}, err
	}
	key, ok := v.people.KeyAt(claim.ChainVersion, claim.Device)
	if !ok {
		return controlEntry{}, unproven("its device was not in the key chain at version %d", claim.ChainVersion)
	}
	g, err := grant.Open(signed, key)
	if err != nil {
		return controlEntry{}, err
	}
	a, ok := v.agreements[g.Agreement]
	if !ok {
		return controlEntry{}, unproven("the agreement that it stands on is not in the bundle")
	}
	if err := a.Covers(g); err != nil {
		return controlEntry{}, err
	}
	return controlEntry{grant: g, hash: grant.HashOf(signed), byStolen: v.people.RemovedAsStolen(g.Device)}, nil
}

func (v *verification) openNarrowing(signed []byte) (controlEntry, error) {
	claim, err := grant.PeekNarrowing(signed)
	if err != nil {
		return controlEntry{}, err
	}
	key, err := anyKey(v.people, claim.Device)
	if err != nil {
		return controlEntry{}, err
	}
	n, err := grant.OpenNarrowing(signed, key)
	return controlEntry{narrow: n}, err
}

func (v *verification) openRevocation(signed []byte) (controlEntry, error) {
	claim, err := grant.PeekRevocation(signed)
	if err != nil {
		return controlEntry{}, err
	}
	key, err := anyKey(v.people, claim.Device)
	if err != nil {
		return controlEntry{}, err
	}
	r, err := grant.OpenRevocation(signed, key)
	return controlEntry{revoke: r}, err
}

// anyKey is the key of a device that is or was in the chain. Narrowing and revoking name no version: less permission by a device
// that has gone since is still what the person's device said.
func anyKey(c *keychain.Chain, id chat.DeviceID) (ed25519.PublicKey, error) {
	for _, d := range slices.Concat(c.Devices(), c.Removed()) {
		if d.ID == id {
			return d.Key, nil
		}
	}
	return nil, unproven("its device was never in the key chain")
}

// belongs reports whether what was signed was signed for this account, partner and number.
func (e controlEntry) belongs(b *Bundle, n uint64) bool {
	switch {
	case e.grant != nil:
		g := e.grant
		return g.Account == b.Account && g.Handle == b.Handle && g.Partner == b.Partner && g.Counter == n
	case e.narrow != nil:
		w := e.narrow
		return w.Account == b.Account && w.Handle == b.Handle && w.Partner == b.Partner && w.Counter == n
	case e.revoke != nil:
		r := e.revoke
		return r.Account == b.Account && r.Handle == b.Handle && r.Partner == b.Partner && r.Counter == n
	}
	return true
}
