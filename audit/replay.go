package audit

import (
	"crypto/ed25519"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/proof"
)

// lie is a rule of spec/ledger.md or spec/map.md that an entry of the log breaks.
type lie struct {
	sentence string
	entries  []int64 // that show it, at most two
}

func (l *lie) Error() string { return l.sentence }

// lying says that an entry breaks a rule; the sentence begins with its number.
func lying(index int64, format string, args ...any) error {
	return &lie{fmt.Sprintf("entry %d %s", index, fmt.Sprintf(format, args...)), []int64{index}}
}

// replay takes the entries of a log one by one and judges each by those before it. After an error nothing of that entry is taken up.
type replay struct {
	vkey string // of the log

	size int64
	edge []hash // roots of the full subtrees that the log consists of, the largest first

	labels  trie
	server  *proof.ServerKeys
	mapRoot *proof.MapRoot // the newest; nil before the first
	ends    bool           // the last entry is a map root

	firstRoot int64 // index of the first map root, -1 before it: the trees of a log that was begun without them have none

	public     map[hash]int64 // index of each public entry, by leaf hash
	agreements map[hash]*agreement
	partners   map[string]*grant.Agreement // the newest agreement of each
}

// agreement is what the log says of one agreement.
type agreement struct {
	partner string
	over    bool
}

func newReplay(vkey string) *replay {
	return &replay{vkey: vkey, firstRoot: -1, public: map[hash]int64{}, agreements: map[hash]*agreement{}, partners: map[string]*grant.Agreement{}}
}

// entry is an entry of a log, read.
type entry struct {
	bytes []byte
	hash  hash // leaf hash
	leaf  proof.Leaf
	err   error // why it cannot be read
}

func readEntry(data []byte) entry {
	e := entry{bytes: data, hash: tlog.RecordHash(data)}
	e.leaf, e.err = proof.ParseLeaf(data)
	return e
}

// add judges the next entry. The error is a *lie, or says that this program is too old to judge.
func (r *replay) add(e entry) error {
	if err := r.judge(e); err != nil {
		return err
	}
	r.grow(e.hash)
	return nil
}

func (r *replay) judge(e entry) error {
	if chat.Is(e.err, chat.Incompatible) {
		return chat.Wrap(chat.Incompatible, e.err, "entry %d is of a kind that this program does not know: audit with a newer one", r.size)
	}
	if e.err != nil {
		return lying(r.size, "cannot be read: %v", e.err)
	}
	_, keys := e.leaf.(*proof.ServerKeys)
	if first := r.size == 0; first && !keys {
		return lying(0, "does not announce the server's keys")
	} else if !first && keys {
		return lying(r.size, "announces server keys a second time")
	}
	var err error
	switch l := e.leaf.(type) {
	case *proof.ServerKeys:
		err = r.addKeys(l)
	case *proof.MapRoot:
		err = r.addMapRoot(l)
	case *proof.Personal:
		err = r.insert(l.Label, e.hash)
	case *proof.KeyEntry:
		err = r.insert(l.Label, e.hash)
	default:
		err = r.addPublic(e)
	}
	if err == nil {
		r.ends = e.leaf.Type() == proof.TypeMapRoot
	}
	return err
}

func (r *replay) addKeys(l *proof.ServerKeys) error {
	if l.LedgerVKey != r.vkey {
		return lying(0, "announces another ledger key than the log's")
	}
	r.server = l
	return nil
}

func (r *replay) addMapRoot(l *proof.MapRoot) error {
	switch {
	case l.Covers != r.size:
		return lying(r.size, "is a map root that says it covers %d entries; it covers %d", l.Covers, r.size)
	case r.mapRoot != nil && l.At < r.mapRoot.At:
		return lying(r.size, "is a map root whose time goes back")
	case l.Public != uint64(len(r.public)):
		return lying(r.size, "is a map root that counts %d public entries; there are %d", l.Public, len(r.public))
	case l.Root != r.labels.rootHash():
		return lying(r.size, "is a map root that does not follow from the log: the entries before it give another one")
	}
	if r.mapRoot == nil {
		r.firstRoot = r.size
	}
	r.mapRoot = l
	return nil
}

// insert takes a label up: the first entry that has it is the only one.
func (r *replay) insert(label, leaf hash) error {
	if first, ok := r.labels.insert(label, leaf, r.size); !ok {
		return &lie{fmt.Sprintf("entry %d has the label of entry %d: no label may stand in the log twice", r.size, first), []int64{r.size, first}}
	}
	return nil
}

func (r *replay) addPublic(e entry) error {
	if first, ok := r.public[e.hash]; ok {
		return &lie{fmt.Sprintf("entry %d repeats entry %d: no entry may stand in the log twice", r.size, first), []int64{r.size, first}}
	}
	label := publicLabel(uint64(len(r.public)))
	if len(r.labels.leaves) > 0 && r.labels.nearest(&label).label == label {
		return r.insert(label, e.hash) // somebody's personal entry has it
	}
	var err error
	switch l := e.leaf.(type) {
	case *proof.Agreement:
		err = r.addAgreement(e.hash, l)
	case *proof.PartnerEnd:
		err = r.endAgreement(l)
	case *proof.Policy:
		err = r.checkPolicy(l)
	}
	if err != nil {
		return err
	}
	r.public[e.hash] = r.size
	return r.insert(label, e.hash)
}

// addAgreement checks an agreement by itself and against the partner's last one: newer ones have greater numbers and the same root key.
func (r *replay) addAgreement(leaf hash, l *proof.Agreement) error {
	a, err := grant.OpenAgreement(l.Countersigned, ed25519.PublicKey(r.server.ServerKey[:]))
	if err != nil {
		return lying(r.size, "holds an agreement that does not stand: %v", err)
	}
	if a.Host != r.server.Host {
		return lying(r.size, "holds an agreement of another server, %s", a.Host)
	}
	if last := r.partners[a.Partner]; last != nil && a.Number <= last.Number {
		return lying(r.size, "holds agreement number %d of %s, which had number %d before", a.Number, a.Partner, last.Number)
	} else if last != nil && a.RootKey != last.RootKey {
		return lying(r.size, "holds an agreement of %s under another root key than the one before", a.Partner)
	}
	r.partners[a.Partner] = a
	r.agreements[leaf] = &agreement{partner: a.Partner}
	return nil
}

func (r *replay) endAgreement(l *proof.PartnerEnd) error {
	a := r.agreements[l.Agreement]
	if a == nil || a.partner != l.Partner || a.over {
		return lying(r.size, "ends an agreement of %s that does not stand", l.Partner)
	}
	a.over = true
	return nil
}

// grow takes a leaf hash into the tree of RFC 6962.
func (r *replay) grow(h hash) {
	for range bits.TrailingZeros64(^uint64(r.size)) {
		last := len(r.edge) - 1
		h, r.edge = tlog.NodeHash(r.edge[last], h), r.edge[:last]
	}
	r.edge = append(r.edge, h)
	r.size++
}

// root is the root of the tree of all entries so far; there is at least one.
func (r *replay) root() hash {
	h := r.edge[len(r.edge)-1]
	for i := len(r.edge) - 2; i >= 0; i-- {
		h = tlog.NodeHash(r.edge[i], h)
	}
	return h
}

func (r *replay) checkPolicy(l *proof.Policy) error {
	p, err := proof.ParsePolicy([]byte(l.Text))
	if err != nil {
		return lying(r.size, "holds a policy that cannot be read: %v", err)
	}
	if p.LogVKey() != r.vkey {
		return lying(r.size, "holds a policy for another log")
	}
	return nil
}
