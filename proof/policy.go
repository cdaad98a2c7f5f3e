package proof

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
)

// Limits of a policy, beside MaxPolicy.
const (
	maxWitnesses  = 32
	maxGroups     = 32
	maxPolicyName = 128 // bytes of a witness' or a group's name, and of a key's
)

// WitnessPolicy says whose cosignatures a checkpoint of one log needs: a c2sp.org/tlog-policy that names exactly one log
// (spec/witness.md section 1). It does not change after ParsePolicy.
type WitnessPolicy struct {
	text      string
	log       note.Verifier
	logVKey   string
	witnesses []PolicyWitness
	quorum    *quorum // nil: quorum none
}

// PolicyWitness is a witness line of a policy.
type PolicyWitness struct {
	Name string // within the policy
	VKey string // note verifier of its cosignatures
	URL  string // submission prefix; empty: nobody asks it

	verifier note.Verifier
}

// KeyName is the name of the witness' key: what stands on its cosignatures.
func (w PolicyWitness) KeyName() string { return w.verifier.Name() }

// Verifier checks the witness' cosignatures.
func (w PolicyWitness) Verifier() note.Verifier { return w.verifier }

// OperatorRun reports whether a key of that name says of itself that the log's own operator holds it: the name is the log's host, or
// begins with the host and a slash. Wherever a quorum is shown such a witness is labelled "not independent". Of any other name this
// tells nothing.
func OperatorRun(keyName, host string) bool {
	rest, ok := strings.CutPrefix(keyName, host)
	return ok && (rest == "" || rest[0] == '/')
}

// quorum is a witness, or so many of its members.
type quorum struct {
	witness int // index, if there are no members
	members []*quorum
	least   int
}

// met reports whether those who signed, by index, are enough.
func (q *quorum) met(signed map[int]bool) bool {
	if len(q.members) == 0 {
		return signed[q.witness]
	}
	n := 0
	for _, m := range q.members {
		if m.met(signed) {
			n++
		}
	}
	return n >= q.least
}

// ParsePolicy reads a policy. Comments stand on lines of their own: a "#" elsewhere would be read in two ways.
func ParsePolicy(text []byte) (*WitnessPolicy, error) {
	if len(text) > MaxPolicy {
		return nil, tooLarge("policy", MaxPolicy)
	}
	p := policyParser{policy: &WitnessPolicy{}, names: map[string]*quorum{}, used: map[string]bool{}}
	var canonical strings.Builder
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.Trim(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		fields, err := policyFields(line)
		if err == nil {
			err = p.line(fields)
		}
		if err != nil {
			return nil, chat.Errorf(chat.Invalid, "policy, line %d: %v", i+1, err)
		}
		canonical.WriteString(strings.Join(fields, " ") + "\n")
	}
	switch {
	case p.policy.log == nil:
		return nil, invalid("policy: it names no log")
	case !p.ended:
		return nil, invalid("policy: it has no quorum line; say \"quorum none\" if no witness is needed")
	}
	p.policy.text = canonical.String()
	return p.policy, nil
}

// policyFields splits a line at spaces and tabs. What is not ASCII would be split in two ways.
func policyFields(line string) ([]string, error) {
	for i := range len(line) {
		if c := line[i]; c != '\t' && (c < ' ' || c > '~') {
			return nil, fmt.Errorf("it holds a character that is not plain ASCII")
		}
	}
	if strings.Contains(line, "#") {
		return nil, fmt.Errorf("a comment needs a line of its own")
	}
	return strings.Fields(line), nil
}

type policyParser struct {
	policy *WitnessPolicy
	names  map[string]*quorum
	used   map[string]bool // names that are a member of some group
	groups int
	ended  bool // by a quorum line
}

func (p *policyParser) line(f []string) error {
	switch {
	case f[0] == "log" && (len(f) == 2 || len(f) == 3):
		return p.logLine(f[1])
	case f[0] == "witness" && (len(f) == 3 || len(f) == 4):
		return p.witnessLine(f[1:])
	case f[0] == "group" && len(f) >= 4:
		return p.groupLine(f[1], f[2], f[3:])
	case f[0] == "quorum" && len(f) == 2:
		return p.quorumLine(f[1])
	}
	return fmt.Errorf("a line is \"log VKEY\", \"witness NAME VKEY [URL]\", \"group NAME K|any|all MEMBER...\" or \"quorum NAME|none\"")
}

func (p *policyParser) logLine(vkey string) error {
	if p.policy.log != nil {
		return fmt.Errorf("a second log: a policy here is for one")
	}
	v, err := note.NewVerifier(vkey)
	if err != nil || !canonicalVKey(vkey) {
		return fmt.Errorf("the log's key is not a note verifier (NAME+HASH+KEY)")
	}
	p.policy.log, p.policy.logVKey = v, vkey
	return nil
}

// canonicalVKey accepts one spelling of a note verifier: base64 decoders take more.
func canonicalVKey(vkey string) bool {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 || len(parts[0]) > maxPolicyName || strings.ToLower(parts[1]) != parts[1] {
		return false
	}
	key, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	return err == nil && base64.StdEncoding.EncodeToString(key) == parts[2]
}

func (p *policyParser) witnessLine(f []string) error {
	w := PolicyWitness{Name: f[0], VKey: f[1]}
	if len(f) == 3 {
		w.URL = f[2]
	}
	v, err := torchwood.NewCosignatureVerifier(w.VKey)
	if err != nil || !canonicalVKey(w.VKey) {
		return fmt.Errorf("the key of witness %q is not a cosignature verifier (NAME+HASH+KEY, of type 4)", w.Name)
	}
	w.verifier = v
	for _, other := range p.policy.witnesses {
		if keyOf(other.VKey) == keyOf(w.VKey) || other.KeyName() == v.Name() && other.verifier.KeyHash() == v.KeyHash() {
			return fmt.Errorf("witnesses %q and %q have the same key", other.Name, w.Name)
		}
	}
	if len(p.policy.witnesses) == maxWitnesses {
		return fmt.Errorf("more than %d witnesses", maxWitnesses)
	}
	if err := p.define(w.Name, &quorum{witness: len(p.policy.witnesses)}); err != nil {
		return err
	}
	p.policy.witnesses = append(p.policy.witnesses, w)
	return nil
}

// keyOf is the public key of a canonical verifier, without its name.
func keyOf(vkey string) string { return strings.SplitN(vkey, "+", 3)[2] }

func (p *policyParser) define(name string, q *quorum) error {
	switch {
	case name == "none":
		return fmt.Errorf("the name \"none\" means that no witness is needed")
	case len(name) > maxPolicyName:
		return fmt.Errorf("a name has at most %d bytes", maxPolicyName)
	case p.names[name] != nil:
		return fmt.Errorf("the name %q is taken", name)
	}
	p.names[name] = q
	return nil
}

func (p *policyParser) groupLine(name, least string, members []string) error {
	q := &quorum{}
	for _, m := range members {
		if p.names[m] == nil {
			return fmt.Errorf("group %q: no line before this one defines %q", name, m)
		}
		if p.used[m] {
			return fmt.Errorf("group %q: %q is a member already; nobody counts twice", name, m)
		}
		p.used[m] = true
		q.members = append(q.members, p.names[m])
	}
	switch least {
	case "any":
		q.least = 1
	case "all":
		q.least = len(members)
	default:
		n, err := strconv.Atoi(least)
		if err != nil || strconv.Itoa(n) != least || n < 1 || n > len(members) {
			return fmt.Errorf("group %q: say how many of its %d members are needed: 1 to %d, any or all", name, len(members), len(members))
		}
		q.least = n
	}
	if p.groups++; p.groups > maxGroups {
		return fmt.Errorf("more than %d groups", maxGroups)
	}
	return p.define(name, q)
}

func (p *policyParser) quorumLine(name string) error {
	if p.ended {
		return fmt.Errorf("a second quorum line")
	}
	p.ended = true
	if name == "none" {
		return nil
	}
	if p.policy.quorum = p.names[name]; p.policy.quorum == nil {
		return fmt.Errorf("no line before this one defines %q", name)
	}
	return nil
}

// String is the policy in its one form: no comments, no empty lines, one space between fields, a line feed after each line. It is
// what the policy leaf holds, and what pinned policies are compared by.
func (p *WitnessPolicy) String() string { return p.text }

// Same reports whether two policies are one. Either may be nil: no policy.
func (p *WitnessPolicy) Same(q *WitnessPolicy) bool {
	return p == q || p != nil && q != nil && p.text == q.text
}

// LogVKey is the note verifier of the log.
func (p *WitnessPolicy) LogVKey() string { return p.logVKey }

// Log checks the log's signatures. Its name is the origin.
func (p *WitnessPolicy) Log() note.Verifier { return p.log }

// Witnesses are all of the policy, in the order of their lines.
func (p *WitnessPolicy) Witnesses() []PolicyWitness {
	if p == nil {
		return nil
	}
	return slices.Clone(p.witnesses)
}

// NeedsQuorum is false if the policy says "quorum none", and without a policy: the log's signature is enough.
func (p *WitnessPolicy) NeedsQuorum() bool { return p != nil && p.quorum != nil }

// Verifiers are those of the log and of every witness.
func (p *WitnessPolicy) Verifiers() note.Verifiers {
	list := []note.Verifier{p.log}
	for _, w := range p.witnesses {
		list = append(list, w.verifier)
	}
	return note.VerifierList(list...)
}

// And is a policy that asks for the quorums of both; of a witness that both name, q's line counts. A nil policy asks for nothing. It has no text:
// it is for the tree with which one policy hands over to the next.
func (p *WitnessPolicy) And(q *WitnessPolicy) *WitnessPolicy {
	if p == nil {
		return q
	}
	if q == nil {
		return p
	}
	both := &WitnessPolicy{log: q.log, logVKey: q.logVKey, witnesses: slices.Clone(q.witnesses)}
	at := make([]int, len(p.witnesses)) // where p's witnesses stand in both
	for i, w := range p.witnesses {
		at[i] = slices.IndexFunc(both.witnesses, func(o PolicyWitness) bool { return o.VKey == w.VKey })
		if at[i] < 0 {
			at[i] = len(both.witnesses)
			both.witnesses = append(both.witnesses, w)
		}
	}
	switch {
	case p.quorum == nil:
		both.quorum = q.quorum
	case q.quorum == nil:
		both.quorum = p.quorum.moved(at)
	default:
		both.quorum = &quorum{members: []*quorum{p.quorum.moved(at), q.quorum}, least: 2}
	}
	return both
}

// moved is the quorum with its witnesses at other places.
func (q *quorum) moved(at []int) *quorum {
	if len(q.members) == 0 {
		return &quorum{witness: at[q.witness]}
	}
	m := &quorum{least: q.least}
	for _, member := range q.members {
		m.members = append(m.members, member.moved(at))
	}
	return m
}

// Handoff is a policy that the log holds, with the proof of its inclusion in a tree that has the quorum of the policy before it
// (spec/witness.md section 3).
type Handoff struct {
	Leaf  []byte
	Proof []byte // c2sp.org/tlog-proof@v1
}

// OpenHandoffs checks a row of handoffs, oldest first, and returns their policies. The first is signed off by the log's key alone.
func OpenHandoffs(log note.Verifier, rows []Handoff) (list []*WitnessPolicy, err error) {
	last := int64(-1)
	for i, row := range rows {
		policy, index, err := openHandoff(log, row)
		if err != nil {
			return nil, chat.Wrap(chat.Unproven, err, "witness policy %d of the ledger does not hold", i)
		}
		if index <= last {
			return nil, unproven("witness policy %d of the ledger stands before the one that it follows", i)
		}
		if i > 0 {
			if _, _, err := list[i-1].Check(checkpointOf(row.Proof)); err != nil {
				return nil, chat.Wrap(chat.Unproven, err, "witness policy %d was not signed off by the quorum of the one before", i)
			}
		}
		last, list = index, append(list, policy)
	}
	return list, nil
}

func openHandoff(log note.Verifier, row Handoff) (*WitnessPolicy, int64, error) {
	leaf, err := ParseLeaf(row.Leaf)
	if err != nil {
		return nil, 0, err
	}
	said, ok := leaf.(*Policy)
	if !ok {
		return nil, 0, invalid("the leaf is no policy")
	}
	policy, err := ParsePolicy([]byte(said.Text))
	if err != nil {
		return nil, 0, err
	}
	if policy.log.Name() != log.Name() || policy.log.KeyHash() != log.KeyHash() {
		return nil, 0, invalid("the policy is for another log")
	}
	index, _, err := OpenInclusion(LeafHash(row.Leaf), row.Proof, log)
	return policy, index, err
}

// checkpointOf is the signed checkpoint of a tlog-proof that was verified.
func checkpointOf(tlogProof []byte) []byte {
	_, signed, _ := bytes.Cut(tlogProof, []byte("\n\n"))
	return signed
}

// InForce is the policy under which a reader who pinned one accepts checkpoints: the last of the row if the pinned one is in it, which was
// signed off from one to the next. Nobody who pinned a policy follows a row without it: chat.Unproven.
func InForce(pinned *WitnessPolicy, row []*WitnessPolicy) (*WitnessPolicy, error) {
	if len(row) == 0 {
		return pinned, nil
	}
	if pinned == nil || slices.ContainsFunc(row, pinned.Same) {
		return row[len(row)-1], nil
	}
	return nil, unproven("the pinned witness policy is none of those that the ledger had")
}

// Cosignature is a witness' signature on a checkpoint, checked.
type Cosignature struct {
	Witness PolicyWitness
	At      int64  // ms, a full second: when the witness says that it signed
	Line    string // of the signed note, in its one form, with its line feed

	index int // of the witness in the policy
}

// Open checks the origin and the log's signature of a checkpoint and finds who of the policy's witnesses cosigned it, in the order of the
// policy. It asks for no quorum. A signature under the log's or a witness' name and key that does not hold spoils the checkpoint;
// signatures of strangers say nothing.
func (p *WitnessPolicy) Open(signed []byte) (Checkpoint, []Cosignature, error) {
	c, n, err := p.open(signed)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	var list []Cosignature
	for i, w := range p.witnesses {
		for _, sig := range n.Sigs {
			if sig.Name != w.KeyName() || sig.Hash != w.verifier.KeyHash() {
				continue
			}
			seconds, err := torchwood.CosignatureTimestamp(sig)
			if err != nil || seconds > math.MaxInt64/1000 {
				return Checkpoint{}, nil, chat.Wrap(chat.Unproven, err, "the cosignature of %s has no time", w.KeyName())
			}
			line, err := signatureLine(sig)
			if err != nil {
				return Checkpoint{}, nil, err
			}
			list = append(list, Cosignature{Witness: w, At: seconds * 1000, Line: line, index: i})
		}
	}
	return c, list, nil
}

func (p *WitnessPolicy) open(signed []byte) (Checkpoint, *note.Note, error) {
	c, err := OpenCheckpoint(signed, p.log)
	if err != nil {
		return c, nil, err
	}
	n, err := note.Open(signed, p.Verifiers())
	if err != nil {
		return c, nil, chat.Wrap(chat.Unproven, err, "a signature on the checkpoint does not hold")
	}
	return c, n, nil
}

// signatureLine writes a signature in its one form.
func signatureLine(sig note.Signature) (string, error) {
	data, err := base64.StdEncoding.DecodeString(sig.Base64)
	if err != nil {
		return "", chat.Wrap(chat.Invalid, err, "a signature is not base64")
	}
	return fmt.Sprintf("— %s %s\n", sig.Name, base64.StdEncoding.EncodeToString(data)), nil
}

// Quorum reports whether these cosignatures (of one checkpoint, from Open) are enough.
func (p *WitnessPolicy) Quorum(list []Cosignature) bool {
	signed := map[int]bool{}
	for _, c := range list {
		signed[c.index] = true
	}
	return p.quorum == nil || p.quorum.met(signed)
}

// Check is Open for a checkpoint that must have the policy's quorum; without it, it is chat.Unproven.
func (p *WitnessPolicy) Check(signed []byte) (Checkpoint, []Cosignature, error) {
	c, list, err := p.Open(signed)
	if err == nil && !p.Quorum(list) {
		err = unproven("the checkpoint of %d entries has not the cosignatures that the policy asks for: %d of its %d witnesses signed", c.Size, len(list), len(p.witnesses))
	}
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return c, list, nil
}

// Cosigned writes a checkpoint in its one form: the log's signature, then those of the policy's witnesses, sorted by line. It takes them from
// the checkpoint and from lines that witnesses answered, one for each witness, the newest. Lines of strangers are left out; one under
// a witness' name and key that does not hold for this very checkpoint is chat.Unproven.
func (p *WitnessPolicy) Cosigned(signed []byte, lines ...string) ([]byte, error) {
	c, list, err := p.Open(signed)
	if err != nil {
		return nil, err
	}
	logOnly, err := p.bare(signed, c)
	if err != nil {
		return nil, err
	}
	for _, line := range lines {
		_, more, err := p.Open(append(bytes.Clone(logOnly), line...))
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	newest := map[int]Cosignature{}
	for _, s := range list {
		if old, ok := newest[s.index]; !ok || s.At > old.At {
			newest[s.index] = s
		}
	}
	var sorted []string
	for _, s := range newest {
		sorted = append(sorted, s.Line)
	}
	slices.Sort(sorted)
	return append(logOnly, strings.Join(sorted, "")...), nil
}

// bare is a checkpoint with the log's signature alone.
func (p *WitnessPolicy) bare(signed []byte, c Checkpoint) ([]byte, error) {
	n, err := note.Open(signed, note.VerifierList(p.log))
	if err != nil {
		return nil, chat.Wrap(chat.Unproven, err, "the checkpoint is not signed by the ledger")
	}
	line, err := signatureLine(n.Sigs[0])
	text := torchwood.Checkpoint{Origin: p.log.Name(), Tree: tlog.Tree{N: c.Size, Hash: c.Root}}.String()
	return []byte(text + "\n" + line), err
}
