package grant

import (
	"bytes"
	"crypto/ed25519"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/keychain"
	"letterlock/mls/roster"
)

// MaxProofs is the largest authenticated_data of a commit, in bytes.
const MaxProofs = 128 << 10

// Proofs is the authenticated_data of a commit that lets a grant in.
type Proofs struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	Grants  []Proof
}

// Proof is all that is needed to judge one new entry.
type Proof struct {
	_              struct{} `cbor:",toarray"`
	Signed         []byte   // the grant
	Agreement      []byte   // countersigned
	AgreementProof []byte   // of its leaf in the ledger
	Certs          []byte
	Record         []byte // the grant's record (package proof)
	RecordProof    []byte // of its leaf in the ledger
}

// Marshal writes the proofs as a commit carries them; none is an empty byte string.
func (p Proofs) Marshal() []byte {
	if len(p.Grants) == 0 {
		return nil
	}
	p.Version = version
	return canon.MustMarshal(p)
}

// OpenProofs reads a commit's authenticated_data.
func OpenProofs(data []byte) (Proofs, error) {
	var p Proofs
	if len(data) == 0 {
		return p, nil
	}
	if len(data) > MaxProofs {
		return p, chat.Errorf(chat.TooLarge, "the commit's proofs are larger than %d bytes", MaxProofs)
	}
	if err := canon.Unmarshal(data, &p); err != nil {
		return p, chat.Wrap(chat.Invalid, err, "the commit's proofs cannot be read")
	}
	if p.Version != version || len(p.Grants) == 0 || len(p.Grants) > MaxGrants {
		return p, chat.Errorf(chat.Invalid, "the commit's proofs are malformed")
	}
	return p, nil
}

// Trust is what a judge believes beyond the group's own state. It is the same for everyone who uses one server.
type Trust struct {
	Host     string
	Operator ed25519.PublicKey // countersigns agreements; the conversation's external sender
	// AgreementLogged checks that the ledger holds the agreement.
	AgreementLogged func(agreement, proof []byte) error
	// GrantLogged checks that the record holds the signed grant, under its account and partner, and that the ledger holds the record.
	GrantLogged func(g *Grant, signed, record, proof []byte) error
}

// JudgeFounding says whether a conversation may begin like this: its founder's device alone, no grant, and the server as its only external sender.
func JudgeFounding(g *roster.Group, t Trust) (Thread, error) {
	thread, err := threadOf(g)
	if err != nil {
		return thread, err
	}
	members := g.Members()
	if g.Epoch() != 0 || len(members) != 1 {
		return thread, chat.Errorf(chat.Invalid, "a conversation begins at epoch 0 with its founder alone")
	}
	if thread.Host != t.Host || len(thread.Grants) != 0 {
		return thread, chat.Errorf(chat.Invalid, "a conversation begins on this server and without grants")
	}
	if err := checkLeaf(members[0], thread); err != nil {
		return thread, err
	}
	if err := checkSenders(g, t); err != nil {
		return thread, err
	}
	return thread, nil
}

// JudgeJoin says whether a conversation may be joined as it stands: every agent's leaf has its entry, and the server is the only external sender.
func JudgeJoin(g *roster.Group, t Trust) (Thread, error) {
	thread, err := threadOf(g)
	if err != nil {
		return thread, err
	}
	if thread.Host != t.Host {
		return thread, chat.Errorf(chat.Invalid, "the conversation is of another server")
	}
	if err := checkSenders(g, t); err != nil {
		return thread, err
	}
	return thread, checkLeaves(g, thread)
}

func checkSenders(g *roster.Group, t Trust) error {
	senders := g.ExternalSenders()
	if len(senders) != 1 || !bytes.Equal(senders[0].SignatureKey, t.Operator) {
		return chat.Errorf(chat.Invalid, "the conversation's external sender must be this server alone")
	}
	return nil
}

// ThreadOf reads a group's extension.
func ThreadOf(g *roster.Group) (Thread, error) { return threadOf(g) }

func threadOf(g *roster.Group) (Thread, error) {
	data, ok := g.Extension(ExtensionType)
	if !ok {
		return Thread{}, chat.Errorf(chat.Invalid, "the conversation lacks the letterlock extension")
	}
	return OpenThread(data)
}

// Verdict is what a valid commit changes about permission.
type Verdict struct {
	Before, After Thread
	Committer     chat.Identity
	Added         []Granted  // new entries, each with its grant
	Ended         []Entry    // entries that are gone
	Narrowed      []Narrowed // entries with fewer actions
}

// Granted is a new entry with what proved it.
type Granted struct {
	Entry Entry
	Grant *Grant
	Proof Proof
}

// Narrowed is an entry before and after.
type Narrowed struct{ Before, After Entry }

// Judge says whether a commit is valid by spec/grant.md, "Which commits are valid". It depends on nothing but its arguments, so that server and
// clients judge alike.
func Judge(c *roster.Change, t Trust) (*Verdict, error) {
	v := &Verdict{}
	var err error
	if v.Committer, err = chat.ParseIdentity(c.Committer.Identity); err != nil {
		return nil, err
	}
	if v.Committer.IsAgent() {
		return nil, chat.Errorf(chat.Forbidden, "only a person's device in the conversation may commit")
	}
	if v.Before, err = threadOf(c.Before()); err != nil {
		return nil, err
	}
	if v.After, err = threadOf(c.Next()); err != nil {
		return nil, err
	}
	if v.Before.Kind != v.After.Kind || v.Before.Host != v.After.Host || v.Before.Partner != v.After.Partner {
		return nil, chat.Errorf(chat.Forbidden, "what a conversation is, and for which partner, never changes")
	}
	if err := checkSenders(c.Next(), t); err != nil {
		return nil, err
	}
	if err := checkExtensions(c); err != nil {
		return nil, err
	}
	if err := checkProposals(c); err != nil {
		return nil, err
	}
	if err := checkKeys(c); err != nil {
		return nil, err
	}
	if err := v.compareEntries(c, t); err != nil {
		return nil, err
	}
	if err := checkLeaves(c.Next(), v.After); err != nil {
		return nil, err
	}
	return v, v.checkAddedAgents(c)
}

// checkExtensions keeps what else the GroupContext says as it was: members carry it into every later epoch.
func checkExtensions(c *roster.Change) error {
	before, after := c.ExtensionsBefore, c.ExtensionsAfter
	same := len(before) == len(after)
	for _, x := range after {
		data, was := before.Lookup(x.Type)
		same = same && was && (x.Type == ExtensionType || bytes.Equal(x.Data, data))
	}
	if !same {
		return chat.Errorf(chat.Forbidden, "nothing of a conversation's context changes but its grants")
	}
	return nil
}

// checkProposals allows a commit what its committer does by itself. Of others' proposals it takes up those that CheckProposal allows: nobody
// acts in a committer's name.
func checkProposals(c *roster.Change) error {
	for _, p := range c.Proposals {
		if p.Proposal.Type == roster.ProposalPSK {
			return chat.Errorf(chat.Forbidden, "a commit takes in no pre-shared key: not every member has it")
		}
		if p.Ref == nil && p.Sender.Type == roster.SenderMember {
			continue
		}
		if err := CheckProposal(c.Before(), p); err != nil {
			return err
		}
	}
	return nil
}

// CheckProposal says whether a proposal may stand for others to commit: a member's for its own leaf, the server's for a removal that is due.
func CheckProposal(g *roster.Group, p roster.ProposalInfo) error {
	if p.Sender.Type == roster.SenderExternal {
		return checkExternal(g, p)
	}
	if p.Proposal.Type == roster.ProposalUpdate || p.Proposal.Type == roster.ProposalRemove && p.Proposal.Remove == p.Sender.Index {
		return nil
	}
	return chat.Errorf(chat.Forbidden, "a member may propose to renew or to remove its own leaf only")
}

// checkExternal allows the server the removal of an agent, and of a device that left its key chain, with the key chain that shows it as the
// proposal's authenticated_data. Nothing else.
func checkExternal(g *roster.Group, p roster.ProposalInfo) error {
	if p.Proposal.Type != roster.ProposalRemove {
		return chat.Errorf(chat.Forbidden, "the server may propose removals only")
	}
	m, ok := g.Member(p.Proposal.Remove)
	if !ok {
		return chat.Errorf(chat.Invalid, "the server proposed to remove nobody")
	}
	id, err := chat.ParseIdentity(m.Identity)
	if err != nil || id.IsAgent() {
		return err
	}
	return checkGone(id, m.SignatureKey, p.AuthenticatedData)
}

// maxChain is the largest key chain in a proposal, in bytes.
const maxChain = 512 << 10

// GoneProof is the authenticated_data of a proposal to remove a device: its key chain, every entry.
func GoneProof(entries [][]byte) []byte { return canon.MustMarshal(entries) }

// checkGone checks that a device left its key chain. The chain cannot be made up: it must have held this leaf's very key, which a chain only
// does by a signature of that key over the account and the chain's beginning, and every later entry is signed by a device before it or the
// recovery key.
func checkGone(id chat.Identity, key ed25519.PublicKey, proof []byte) error {
	refuse := chat.Errorf(chat.Forbidden, "the server may not remove a person")
	var entries [][]byte
	if len(proof) > maxChain || canon.Unmarshal(proof, &entries) != nil {
		return refuse
	}
	chain, err := keychain.Open(entries)
	if err != nil || chain.Host() != id.Host || chain.Handle() != id.Handle {
		return refuse
	}
	for _, d := range chain.Removed() {
		if d.ID == id.Device && bytes.Equal(d.Key, key) {
			return nil
		}
	}
	return refuse
}

// checkKeys holds members to the signature key that they came with: a device is known by its own, and its key chain names no other.
func checkKeys(c *roster.Change) error {
	for _, u := range c.Updated {
		if !bytes.Equal(u.Before.SignatureKey, u.After.SignatureKey) {
			return chat.Errorf(chat.Forbidden, "a member may not change its signature key")
		}
	}
	return nil
}

// checkAddedAgents brings an agent's leaf in with its entry only: nobody but the granting person puts a reader there, or puts one back
// that the server had removed.
func (v *Verdict) checkAddedAgents(c *roster.Change) error {
	for _, m := range c.Added {
		id, err := chat.ParseIdentity(m.Identity)
		if err != nil {
			return err
		}
		if _, old := v.Before.Find(id.Grant); id.IsAgent() && old {
			return chat.Errorf(chat.Forbidden, "an agent enters a conversation with its grant, and not again under the same one")
		}
	}
	return nil
}

func (v *Verdict) compareEntries(c *roster.Change, t Trust) error {
	proofs, err := OpenProofs(c.AuthenticatedData)
	if err != nil {
		return err
	}
	for _, e := range v.Before.Grants {
		if _, stays := v.After.Find(e.Grant); !stays {
			v.Ended = append(v.Ended, e)
		}
	}
	for _, e := range v.After.Grants {
		old, was := v.Before.Find(e.Grant)
		switch {
		case was && old == e:
		case was:
			if err := checkNarrowed(old, e, v.Committer); err != nil {
				return err
			}
			v.Narrowed = append(v.Narrowed, Narrowed{old, e})
		default:
			granted, err := v.checkAdded(e, proofs, c, t)
			if err != nil {
				return err
			}
			v.Added = append(v.Added, granted)
		}
	}
	if len(proofs.Grants) != len(v.Added) {
		return chat.Errorf(chat.Invalid, "the commit carries proofs that it does not need")
	}
	return nil
}

func checkNarrowed(old, now Entry, by chat.Identity) error {
	fewer := now.Actions != old.Actions && old.Actions.Has(now.Actions)
	now.Actions = old.Actions
	if now != old || !fewer {
		return chat.Errorf(chat.Forbidden, "a grant in the thread may be narrowed, not changed or widened")
	}
	if by.Handle != old.Handle {
		return chat.Errorf(chat.Forbidden, "a grant is narrowed by its own person")
	}
	return nil
}

func (v *Verdict) checkAdded(e Entry, proofs Proofs, c *roster.Change, t Trust) (Granted, error) {
	if v.After.Kind != Shared {
		return Granted{}, chat.Errorf(chat.Forbidden, "a private conversation admits no partner")
	}
	for _, p := range proofs.Grants {
		if HashOf(p.Signed) != e.Hash {
			continue
		}
		g, err := checkProof(p, c.Committer.SignatureKey, t)
		if err != nil {
			return Granted{}, err
		}
		switch {
		case g.Entry(p.Signed) != e:
			return Granted{}, chat.Errorf(chat.Invalid, "the thread's entry is not what the grant says")
		case g.Handle != v.Committer.Handle || g.Device != v.Committer.Device:
			return Granted{}, chat.Errorf(chat.Forbidden, "a grant enters a thread by the device that signed it")
		case !bytes.Equal(g.Conversation[:], c.Before().ID()):
			return Granted{}, chat.Errorf(chat.Forbidden, "the grant is for another conversation")
		case g.Partner != v.After.Partner:
			return Granted{}, chat.Errorf(chat.Forbidden, "the thread was made for another partner")
		case g.Previous != Hash{} && !v.replaces(g.Previous, g.Account):
			return Granted{}, chat.Errorf(chat.Invalid, "the grant replaces one that is not in the thread")
		}
		return Granted{e, g, p}, nil
	}
	return Granted{}, chat.Errorf(chat.Unproven, "a grant entered the thread without its proof")
}

func (v *Verdict) replaces(previous Hash, account chat.AccountID) bool {
	for _, e := range v.Ended {
		if e.Hash == previous && e.Account == account {
			return true
		}
	}
	return false
}

// checkProof checks everything about a grant that does not depend on the thread it enters.
func checkProof(p Proof, device ed25519.PublicKey, t Trust) (*Grant, error) {
	g, err := Open(p.Signed, device)
	if err != nil {
		return nil, err
	}
	a, err := OpenAgreement(p.Agreement, t.Operator)
	if err != nil {
		return nil, err
	}
	if AgreementHash(p.Agreement) != g.Agreement || a.Host != t.Host {
		return nil, chat.Errorf(chat.Invalid, "the grant stands on another agreement")
	}
	if err := a.Covers(g); err != nil {
		return nil, err
	}
	key, err := CheckCerts(p.Certs, a.RootKey[:], g.Partner, g.ID, g.Issued)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(key, g.AgentKey[:]) {
		return nil, chat.Errorf(chat.Tampered, "the grant names a key that the partner did not certify")
	}
	if err := t.AgreementLogged(p.Agreement, p.AgreementProof); err != nil {
		return nil, err
	}
	return g, t.GrantLogged(g, p.Signed, p.Record, p.RecordProof)
}

// checkLeaves compares a conversation's leaves with its entries: no agent without its entry, no reader without its leaf.
func checkLeaves(g *roster.Group, t Thread) error {
	readers := 0
	for _, m := range g.Members() {
		if err := checkLeaf(m, t); err != nil {
			return err
		}
		if id, err := chat.ParseIdentity(m.Identity); err == nil && id.IsAgent() {
			readers++
		}
	}
	for _, e := range t.Grants {
		if e.Actions.Has(chat.Read) {
			readers--
		}
	}
	if readers != 0 { // each agent's leaf has an entry of its own, so the counts can differ only if an entry lacks its leaf
		return chat.Errorf(chat.Invalid, "a grant to read stands in the thread without its leaf")
	}
	return nil
}

func checkLeaf(m roster.Member, t Thread) error {
	id, err := chat.ParseIdentity(m.Identity)
	if err != nil {
		return err
	}
	if id.Host != t.Host {
		return chat.Errorf(chat.Forbidden, "a member is of another host")
	}
	if !id.IsAgent() {
		return nil
	}
	e, ok := t.Find(id.Grant)
	if !ok || t.Kind != Shared || id.Partner != t.Partner || !e.Actions.Has(chat.Read) || !bytes.Equal(m.SignatureKey, e.AgentKey[:]) {
		return chat.Errorf(chat.Forbidden, "an agent is in the conversation without a grant to read it")
	}
	return nil
}
