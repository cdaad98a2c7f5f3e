package roster

import (
	"bytes"
	"crypto/ed25519"
	"time"
)

// ExternalRemove is the PublicMessage by which an external sender, listed in the group at senderIndex, proposes to remove a
// leaf (RFC 9420, section 12.1.8). It is the only thing that we let an external sender propose.
func ExternalRemove(g *Group, signer ed25519.PrivateKey, senderIndex, leaf uint32, aad []byte) ([]byte, error) {
	a := AuthenticatedContent{WireFormat: WirePublicMessage, Content: Content{
		GroupID: g.ID(), Epoch: g.Epoch(), Sender: Sender{SenderExternal, senderIndex}, AuthenticatedData: bytes.Clone(aad),
		Type: ContentProposal, Proposal: &Proposal{Type: ProposalRemove, Remove: leaf},
	}}
	if err := a.Sign(g.suite, signer, nil); err != nil {
		return nil, err
	}
	if _, _, err := g.StageProposalContent(&a, time.Time{}); err != nil {
		return nil, err
	}
	return Marshal(&Message{WireFormat: WirePublicMessage, Public: &PublicMessage{AuthenticatedContent: a}}), nil
}
