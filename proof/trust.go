package proof

import (
	"bytes"
	"crypto/ed25519"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/grant"
)

// Trust is what a judge of commits (package grant) believes of a server, from the keys that were pinned. Server, devices and agents
// all judge with it, so that they judge alike.
func Trust(host string, operator ed25519.PublicKey, ledgerVKey string, vrfKey []byte) (grant.Trust, error) {
	log, err := note.NewVerifier(ledgerVKey)
	if err != nil || log.Name() != Origin(host) {
		return grant.Trust{}, invalid("the ledger's key is not a note verifier named %s", Origin(host))
	}
	key, err := NewVRFKey(vrfKey)
	if err != nil {
		return grant.Trust{}, err
	}
	return grant.Trust{
		Host:     host,
		Operator: operator,
		AgreementLogged: func(agreement, tlogProof []byte) error {
			leaf := Agreement{Countersigned: agreement}
			_, _, err := OpenInclusion(LeafHash(leaf.Bytes()), tlogProof, log)
			return err
		},
		GrantLogged: func(g *grant.Grant, signed, record, tlogProof []byte) error {
			return checkGrantRecord(key, log, g, signed, record, tlogProof)
		},
	}, nil
}

// checkGrantRecord checks that the record is the control record of the signed grant, and that the ledger holds it.
func checkGrantRecord(key VRFKey, log note.Verifier, g *grant.Grant, signed, record, tlogProof []byte) error {
	r, err := ParseRecord(record)
	if err != nil {
		return err
	}
	if err := r.CheckAlone(key); err != nil {
		return err
	}
	said, err := r.Says()
	if err != nil {
		return err
	}
	p, ok := said.(*Grant)
	if !ok || !bytes.Equal(p.Signed, signed) {
		return unproven("the record is not of this grant")
	}
	if want := (Place{Account: g.Account, Partner: g.Partner, Chain: Control, N: g.Counter}); r.Place != want {
		return chat.Errorf(chat.Unproven, "the record of the grant stands at another place of the history than the grant says")
	}
	_, _, err = OpenInclusion(r.LeafHash(), tlogProof, log)
	return err
}
