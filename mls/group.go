package mls

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"time"

	"letterlock/mls/roster"
)

// Group is one member's state of one epoch.
type Group struct {
	suite      suite
	public     *roster.Group
	own        uint32
	signer     ed25519.PrivateKey
	epoch      *epoch // shared by the copies that remember proposals
	mustCommit bool   // restored: no sealing before our own path was merged
}

// epoch is the secrets of one epoch. Only the ratchets, and the ring when we propose an Update, change.
type epoch struct {
	secrets
	tree *secretTree
	keys keyring
	over bool
}

// end forgets everything.
func (e *epoch) end() {
	for _, s := range e.all() {
		s.wipe()
	}
	e.tree.wipe()
	e.keys.wipe()
	e.over = true
}

// creatorLifetime is what the first member's leaf says; it counts for nothing once the group stands.
const creatorLifetime = 90 * 24 * time.Hour

// CreateOptions say what group to make.
type CreateOptions struct {
	GroupID             []byte
	Identity            []byte
	Signer              ed25519.PrivateKey
	Extensions          roster.Extensions // of the GroupContext
	SupportedExtensions []uint16          // beyond the default ones
	LeafExtensions      roster.Extensions
	Now                 time.Time
	Rand                io.Reader // nil: crypto/rand
}

// Create makes a group with one member, at epoch 0, from random secrets (RFC 9420, section 11).
func Create(o CreateOptions) (*Group, error) {
	s, err := newSuite(&roster.Suites[0])
	if err != nil {
		return nil, err
	}
	if o.Now.IsZero() {
		return nil, invalid("create without a clock")
	}
	pair, err := s.newKeyPair(o.Rand)
	if err != nil {
		return nil, err
	}
	leaf, err := s.newLeaf(pair.public, o.Identity, o.Signer, o.SupportedExtensions, o.LeafExtensions, o.Now.Add(-time.Hour), o.Now.Add(creatorLifetime))
	if err != nil {
		return nil, err
	}
	epochSecret, err := random(o.Rand, s.HashSize)
	if err != nil {
		return nil, err
	}
	defer epochSecret.wipe()
	k := s.epochSecrets(epochSecret)
	defer k.wipe()
	public, err := roster.NewGroup(s.Suite, o.GroupID, leaf, o.Extensions, s.mac(k.confirmation, nil))
	if err != nil {
		return nil, err
	}
	keys := keyring{}
	keys.add(pair)
	return newGroup(s, public, 0, o.Signer, k, keys), nil
}

// newGroup takes an epoch's schedule into use. keys belongs to the group from here on.
func newGroup(s suite, public *roster.Group, own uint32, signer ed25519.PrivateKey, k *schedule, keys keyring) *Group {
	keys.prune(public.Tree(), own)
	return &Group{suite: s, public: public, own: own, signer: signer, epoch: &epoch{
		secrets: k.secrets, tree: newSecretTree(s, k.encryption, public.Tree().Width()), keys: keys,
	}}
}

// Roster is the public view of the same epoch.
func (g *Group) Roster() *roster.Group { return g.public }

// ID is the group's identifier.
func (g *Group) ID() []byte { return g.public.ID() }

// Epoch is the number of commits so far.
func (g *Group) Epoch() uint64 { return g.public.Epoch() }

// OwnLeaf is our place.
func (g *Group) OwnLeaf() uint32 { return g.own }

// Generation counts the application messages that we sealed in this epoch; 0 once it is over.
func (g *Group) Generation() uint32 {
	if g.epoch.over {
		return 0
	}
	return g.epoch.tree.of(g.own).application.next
}

// MustCommit tells that the group was restored and refuses Seal until a commit of our own with a path was merged.
func (g *Group) MustCommit() bool { return g.mustCommit }

// Restored is the same group, marked as coming from a copy that may be old: sealing with it could use a key and nonce a
// second time. The mark is stored with the group and goes when our own commit with a path is merged.
func (g *Group) Restored() *Group {
	r := *g
	r.mustCommit = true
	return &r
}

// alive refuses work with an epoch whose secrets are gone.
func (g *Group) alive() error {
	if g.epoch.over {
		return ErrEpochOver
	}
	return nil
}

// maxExport is what HKDF-Expand can give, in hashes.
const maxExport = 255

// Export derives n bytes for another use, different for each epoch, label and context (RFC 9420, section 8.5).
func (g *Group) Export(label string, context []byte, n int) ([]byte, error) {
	if err := g.alive(); err != nil {
		return nil, err
	}
	if n < 1 || n > maxExport*g.suite.HashSize {
		return nil, invalid("export of %d bytes", n)
	}
	return g.suite.export(g.epoch.exporter, label, context, n), nil
}

// EpochAuthenticator is equal for all members of an unforked epoch, and for nobody else (RFC 9420, section 8.7). It may be
// shown and compared.
func (g *Group) EpochAuthenticator() []byte { return bytes.Clone(g.epoch.authenticator) }

// ResumptionPSK proves membership in this epoch to a later one (RFC 9420, section 8.6). It is a secret.
func (g *Group) ResumptionPSK() ([]byte, error) { return bytes.Clone(g.epoch.resumption), g.alive() }

// GroupInfo is the MLSMessage with a signed GroupInfo and its ratchet tree, as roster.Open reads it.
func (g *Group) GroupInfo() ([]byte, error) {
	info, err := g.groupInfo()
	if err != nil {
		return nil, err
	}
	return roster.Marshal(&roster.Message{WireFormat: roster.WireGroupInfo, GroupInfo: info}), nil
}

func (g *Group) groupInfo() (*roster.GroupInfo, error) {
	info := &roster.GroupInfo{
		Context:    roster.DecodeGroupContext(roster.NewReader(g.public.Context())),
		Extensions: roster.Extensions{g.public.Tree().Extension()}, ConfirmationTag: g.public.ConfirmationTag(), Signer: g.own,
	}
	return info, info.Sign(g.suite.Suite, g.signer)
}
