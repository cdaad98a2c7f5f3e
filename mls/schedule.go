package mls

import (
	"letterlock/mls/roster"
)

// secrets is what an epoch keeps (RFC 9420, section 8, table 4). Joiner, member, welcome and epoch secret, the confirmation
// key and the encryption secret exist only while the epoch is set up.
type secrets struct {
	senderData    secret
	exporter      secret
	membership    secret
	resumption    secret
	authenticator secret
	init          secret // for the next epoch
}

func (e *secrets) all() []*secret {
	return []*secret{&e.senderData, &e.exporter, &e.membership, &e.resumption, &e.authenticator, &e.init}
}

// schedule is an epoch being set up.
type schedule struct {
	secrets
	joiner       secret // nil in epoch 0
	welcome      secret // nil in epoch 0
	confirmation secret
	encryption   secret
}

// wipe forgets what the epoch does not keep.
func (k *schedule) wipe() {
	for _, s := range []secret{k.joiner, k.welcome, k.confirmation, k.encryption} {
		s.wipe()
	}
}

// joinerSecret mixes the commit into the last epoch's init secret.
func (s suite) joinerSecret(init, commit secret, context []byte) secret {
	mixed := s.extract(init, commit)
	defer mixed.wipe()
	return s.expand(mixed, "joiner", context, s.HashSize)
}

// scheduleFrom is the key schedule from the joiner secret on; context is the encoded new GroupContext.
func (s suite) scheduleFrom(joiner, psk secret, context []byte) *schedule {
	member := s.extract(joiner, psk)
	defer member.wipe()
	epoch := s.expand(member, "epoch", context, s.HashSize)
	defer epoch.wipe()
	k := s.epochSecrets(epoch)
	k.joiner = joiner
	k.welcome = s.derive(member, "welcome")
	return k
}

// epochSecrets derives all from the epoch secret.
func (s suite) epochSecrets(epoch secret) *schedule {
	return &schedule{
		secrets: secrets{
			senderData:    s.derive(epoch, "sender data"),
			exporter:      s.derive(epoch, "exporter"),
			membership:    s.derive(epoch, "membership"),
			resumption:    s.derive(epoch, "resumption"),
			authenticator: s.derive(epoch, "authentication"),
			init:          s.derive(epoch, "init"),
		},
		confirmation: s.derive(epoch, "confirm"),
		encryption:   s.derive(epoch, "encryption"),
	}
}

// export is MLS-Exporter (RFC 9420, section 8.5).
func (s suite) export(exporter secret, label string, context []byte, n int) secret {
	derived := s.derive(exporter, label)
	defer derived.wipe()
	return s.expand(derived, "exported", s.Hash(context), n)
}

// PSKSource finds a pre-shared key. It is asked with the identifier as it stands in the commit or Welcome, nonce included.
type PSKSource func(id roster.PreSharedKeyID) ([]byte, bool)

// pskSecret combines pre-shared keys (RFC 9420, section 8.4); none give zeros.
func (s suite) pskSecret(ids []roster.PreSharedKeyID, source PSKSource) (secret, error) {
	combined := make(secret, s.HashSize)
	for i := range ids {
		if source == nil {
			return nil, ErrUnknownPSK
		}
		psk, ok := source(ids[i])
		if !ok {
			return nil, ErrUnknownPSK
		}
		extracted := s.extract(make(secret, s.HashSize), psk)
		var label roster.Writer
		ids[i].Encode(&label)
		label.Uint16(uint16(i))
		label.Uint16(uint16(len(ids)))
		input := s.expand(extracted, "derived psk", label.Bytes(), s.HashSize)
		combined = s.extract(input, combined)
	}
	return combined, nil
}

// proposedPSKs is the pre-shared keys that a commit asks for, in its order.
func proposedPSKs(list []roster.ProposalInfo) (ids []roster.PreSharedKeyID) {
	for _, p := range list {
		if p.Proposal.Type == roster.ProposalPSK {
			ids = append(ids, p.Proposal.PSK)
		}
	}
	return ids
}
