package mls

import (
	"bytes"
	"crypto/ed25519"

	"letterlock/mls/roster"
)

// groupSecrets is what a Welcome tells one new member (RFC 9420, section 12.4.3.1).
type groupSecrets struct {
	joiner secret
	path   secret // nil: the commit had no path
	psks   []roster.PreSharedKeyID
}

// Encode writes GroupSecrets.
func (m *groupSecrets) Encode(w *roster.Writer) {
	w.Opaque(m.joiner)
	w.Optional(m.path != nil)
	if m.path != nil {
		w.Opaque(m.path)
	}
	w.Vector(func(w *roster.Writer) {
		for i := range m.psks {
			m.psks[i].Encode(w)
		}
	})
}

func decodeGroupSecrets(b []byte) (m groupSecrets, err error) {
	r := roster.NewReader(b)
	m.joiner = r.Opaque()
	if r.Optional() {
		m.path = r.Opaque()
	}
	r.Vector(func(r *roster.Reader) { m.psks = append(m.psks, roster.DecodePreSharedKeyID(r)) })
	return m, r.Done()
}

// welcome brings in those whom the commit before this epoch added. Each is told the secret of the lowest node above both it
// and us.
func (g *Group) welcome(change *roster.Change, path *newPath, k *schedule) ([]byte, error) {
	info, err := g.groupInfo()
	if err != nil {
		return nil, err
	}
	m := &roster.Welcome{Suite: g.suite.ID}
	if m.EncryptedGroupInfo, err = g.suite.seal(g.suite.welcomeKey(k.welcome), g.suite.welcomeNonce(k.welcome), roster.Marshal(info), nil); err != nil {
		return nil, err
	}
	for i, added := range change.Added {
		kp := change.AddedKeyPackages[i]
		ancestor := roster.CommonAncestor(roster.NodeOf(g.own), roster.NodeOf(added.Leaf))
		plaintext := secret(roster.Marshal(&groupSecrets{joiner: k.joiner, path: path.secrets[ancestor]}))
		c, err := g.suite.encryptTo(kp.InitKey, "Welcome", m.EncryptedGroupInfo, plaintext)
		plaintext.wipe()
		if err != nil {
			return nil, err
		}
		m.Secrets = append(m.Secrets, roster.EncryptedGroupSecrets{NewMember: kp.Ref, Secrets: c})
	}
	return roster.Marshal(&roster.Message{WireFormat: roster.WireWelcome, Welcome: m}), nil
}

func (s suite) welcomeKey(welcome secret) secret { return s.expand(welcome, "key", nil, s.KeySize) }
func (s suite) welcomeNonce(welcome secret) secret {
	return s.expand(welcome, "nonce", nil, s.NonceSize)
}

// JoinOptions say how to join.
type JoinOptions struct {
	Signer      ed25519.PrivateKey // of the KeyPackage's leaf
	RatchetTree []byte             // the encoded tree; nil: the Welcome carries it
	PSK         PSKSource
}

// Join enters a group by a Welcome. Once it succeeds the KeyPackage's private keys are wiped, unless it is of last resort;
// the caller deletes the stored copy. Whether the group is a wanted one is for the caller to judge, from Roster.
func Join(welcome []byte, kp *KeyPackage, o JoinOptions) (*Group, error) {
	if kp.initKey.private == nil {
		return nil, ErrKeyUsed
	}
	m, err := roster.DecodeMessage(welcome)
	if err != nil {
		return nil, err
	}
	if m.WireFormat != roster.WireWelcome {
		return nil, invalid("wire format %d is no welcome", m.WireFormat)
	}
	if m.Welcome.Suite != kp.suite.ID {
		return nil, unsupported("welcome for suite %#04x", m.Welcome.Suite)
	}
	told, err := kp.openSecrets(m.Welcome)
	if err != nil {
		return nil, err
	}
	psk, err := kp.suite.pskSecret(told.psks, o.PSK)
	if err != nil {
		return nil, err
	}
	info, err := kp.suite.openGroupInfo(m.Welcome, told.joiner, psk)
	if err != nil {
		return nil, err
	}
	public, err := roster.OpenGroupInfo(info, o.RatchetTree, noClock)
	if err != nil {
		return nil, err
	}
	return kp.enter(public, info.Signer, told, psk, o.Signer)
}

// openSecrets finds and opens what the Welcome says to this KeyPackage.
func (k *KeyPackage) openSecrets(m *roster.Welcome) (told groupSecrets, err error) {
	for _, s := range m.Secrets {
		if !bytes.Equal(s.NewMember, k.Ref) {
			continue
		}
		plaintext, err := k.suite.decryptWith(k.initKey.private, "Welcome", m.EncryptedGroupInfo, s.Secrets)
		if err != nil {
			return told, err
		}
		if told, err = decodeGroupSecrets(plaintext); err != nil {
			return told, err
		}
		if len(told.joiner) != k.suite.HashSize {
			return told, invalid("joiner secret of %d bytes", len(told.joiner))
		}
		return told, checkWelcomePSKs(told.psks)
	}
	return told, ErrNotForUs
}

// checkWelcomePSKs refuses keys of reinitialisation and branching, and one key twice.
func checkWelcomePSKs(ids []roster.PreSharedKeyID) error {
	seen := map[string]bool{}
	for i := range ids {
		if ids[i].Type == roster.PSKResumption && ids[i].Usage != 1 {
			return unsupported("welcome by reinitialisation or branching")
		}
		id := string(roster.Marshal(&ids[i]))
		if seen[id] {
			return invalid("pre-shared key named twice")
		}
		seen[id] = true
	}
	return nil
}

// openGroupInfo decrypts the GroupInfo; the welcome secret needs no context.
func (s suite) openGroupInfo(m *roster.Welcome, joiner, psk secret) (*roster.GroupInfo, error) {
	member := s.extract(joiner, psk)
	defer member.wipe()
	key := s.derive(member, "welcome")
	defer key.wipe()
	plaintext, err := s.open(s.welcomeKey(key), s.welcomeNonce(key), m.EncryptedGroupInfo, nil)
	if err != nil {
		return nil, err
	}
	r := roster.NewReader(plaintext)
	info := roster.DecodeGroupInfo(r)
	if err := r.Done(); err != nil {
		return nil, err
	}
	if info.Context.Suite != s.ID {
		return nil, invalid("group of suite %#04x in a welcome for %#04x", info.Context.Suite, s.ID)
	}
	return info, nil
}

// enter sets up the epoch that the Welcome tells of and verifies its confirmation tag.
func (k *KeyPackage) enter(public *roster.Group, committer uint32, told groupSecrets, psk secret, signer ed25519.PrivateKey) (*Group, error) {
	own, err := k.findLeaf(public, signer)
	if err != nil {
		return nil, err
	}
	keys := keyring{}
	keys.add(keyPair{k.leafKey.public, k.leafKey.private.clone()})
	if told.path != nil {
		from := roster.CommonAncestor(roster.NodeOf(committer), roster.NodeOf(own))
		if public.Tree().EncryptionKey(from) == nil || committer == own {
			return nil, invalid("welcome with a path secret for a blank node")
		}
		if _, err := k.suite.climb(public.Tree(), committer, from, told.path, keys); err != nil {
			return nil, err
		}
	}
	schedule := k.suite.scheduleFrom(told.joiner, psk, public.Context())
	defer schedule.wipe()
	if err := k.suite.checkMAC(schedule.confirmation, public.ConfirmedTranscriptHash(), public.ConfirmationTag()); err != nil {
		return nil, err
	}
	if !k.lastResort {
		k.Wipe()
	}
	return newGroup(k.suite, public, own, signer, schedule, keys), nil
}

// findLeaf finds our KeyPackage's leaf in the tree and checks that signer signs for it.
func (k *KeyPackage) findLeaf(public *roster.Group, signer ed25519.PrivateKey) (uint32, error) {
	t := public.Tree()
	for leaf := range t.Width() {
		l := t.Leaf(leaf)
		if l == nil || !bytes.Equal(l.Signature, k.leaf) {
			continue
		}
		if !signsFor(signer, l) {
			return 0, invalid("signing key of another leaf")
		}
		return leaf, nil
	}
	return 0, invalid("welcome to a group without our key package")
}
