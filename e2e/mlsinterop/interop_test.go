package mlsinterop

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"letterlock/mls"
	"letterlock/mls/roster"
)

// driver is the Node process with its clients.
type driver struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

func startDriver(t *testing.T) *driver {
	t.Helper()
	if _, err := os.Stat("node_modules/ts-mls"); err != nil {
		install := exec.Command("npm", "ci", "--no-audit", "--no-fund")
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
	}
	cmd := exec.Command("node", "driver.mjs")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return &driver{t, in, bufio.NewReaderSize(out, 1<<20)}
}

type fields map[string]any

// call sends one request; answer takes the "ok" part.
func (d *driver) call(op, client string, more fields, answer any) {
	d.t.Helper()
	if err := d.try(op, client, more, answer); err != nil {
		d.t.Fatalf("%s: %s: %v", client, op, err)
	}
}

func (d *driver) try(op, client string, more fields, answer any) error {
	d.t.Helper()
	request := fields{"op": op, "client": client}
	for k, v := range more {
		request[k] = v
	}
	line, err := json.Marshal(request)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := d.in.Write(append(line, '\n')); err != nil {
		d.t.Fatal(err)
	}
	if line, err = d.out.ReadBytes('\n'); err != nil {
		d.t.Fatalf("driver: %v", err)
	}
	var reply struct {
		OK    json.RawMessage `json:"ok"`
		Error string          `json:"error"`
	}
	if err := json.Unmarshal(line, &reply); err != nil {
		d.t.Fatal(err)
	}
	if reply.Error != "" {
		return fmt.Errorf("%s", reply.Error)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(reply.OK, answer)
}

// bytes is call for an answer of bytes.
func (d *driver) bytes(op, client string, more fields) []byte {
	d.t.Helper()
	var text string
	d.call(op, client, more, &text)
	return unhex(d.t, text)
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// party is one member, ours or theirs.
type party interface {
	name() string
	keyPackage() []byte
	join(welcome []byte)
	commit(add [][]byte, remove []uint32, extensions []roster.Extension) (commit, welcome []byte)
	merge()
	process(msg []byte) []byte // plaintext, or nothing
	seal(plaintext []byte) []byte
	proposeRemove(leaf uint32) []byte
	leaf(of string) uint32
	state() (epoch uint64, authenticator, exported []byte)
}

// theirs is a client of ts-mls.
type theirs struct {
	d  *driver
	id string
	r  func() *roster.Group // the public group, which one of ours keeps
}

func (p *theirs) name() string { return p.id }
func (p *theirs) keyPackage() []byte {
	return p.d.bytes("keyPackage", p.id, fields{"identity": p.id})
}
func (p *theirs) join(welcome []byte) {
	p.d.call("join", p.id, fields{"welcome": hex.EncodeToString(welcome)}, nil)
}
func (p *theirs) commit(add [][]byte, remove []uint32, extensions []roster.Extension) (commit, welcome []byte) {
	p.d.t.Helper()
	request := fields{"remove": remove, "aad": "0102"}
	texts := []string{}
	for _, b := range add {
		texts = append(texts, hex.EncodeToString(b))
	}
	request["add"] = texts
	if extensions != nil {
		p.d.t.Fatal("ts-mls cannot replace extensions")
	}
	var answer struct{ Commit, Welcome string }
	p.d.call("commit", p.id, request, &answer)
	return unhex(p.d.t, answer.Commit), unhex(p.d.t, answer.Welcome)
}

func jsonExtensions(list []roster.Extension) []fields {
	out := []fields{}
	for _, e := range list {
		typ := any(e.Type)
		switch e.Type {
		case roster.ExtExternalSenders:
			typ = "external_senders"
		case roster.ExtRequiredCapabilities:
			typ = "required_capabilities"
		}
		out = append(out, fields{"type": typ, "data": hex.EncodeToString(e.Data)})
	}
	return out
}

func (p *theirs) merge() { p.d.call("merge", p.id, nil, nil) }
func (p *theirs) process(msg []byte) []byte {
	p.d.t.Helper()
	return p.d.bytes("process", p.id, fields{"message": hex.EncodeToString(msg)})
}
func (p *theirs) seal(plaintext []byte) []byte {
	return p.d.bytes("seal", p.id, fields{"plaintext": hex.EncodeToString(plaintext), "aad": "0a"})
}
func (p *theirs) proposeRemove(leaf uint32) []byte {
	return p.d.bytes("proposeRemove", p.id, fields{"leaf": leaf})
}
func (p *theirs) leaf(of string) uint32 {
	m, ok := p.r().MemberByIdentity([]byte(of))
	if !ok {
		p.d.t.Fatalf("no member %s", of)
	}
	return m.Leaf
}
func (p *theirs) state() (uint64, []byte, []byte) {
	p.d.t.Helper()
	var answer struct {
		Epoch                   uint64
		Authenticator, Exported string
	}
	p.d.call("state", p.id, fields{"label": "letterlock slot", "context": "aabb", "length": 32}, &answer)
	return answer.Epoch, unhex(p.d.t, answer.Authenticator), unhex(p.d.t, answer.Exported)
}

// ours is a client of package mls.
type ours struct {
	t       *testing.T
	id      string
	signer  ed25519.PrivateKey
	kp      *mls.KeyPackage
	group   *mls.Group
	pending *mls.Pending
}

func newOurs(t *testing.T, id string) *ours {
	_, signer, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &ours{t: t, id: id, signer: signer}
}

func (p *ours) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%s: %v", p.id, err)
	}
}

func (p *ours) name() string { return p.id }
func (p *ours) keyPackage() []byte {
	p.t.Helper()
	var err error
	p.kp, err = mls.NewKeyPackage(mls.KeyPackageOptions{
		Identity: []byte(p.id), Signer: p.signer, SupportedExtensions: []uint16{roster.ExtLetterlock},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	})
	p.check(err)
	return p.kp.Public
}

func (p *ours) join(welcome []byte) {
	p.t.Helper()
	var err error
	p.group, err = mls.Join(welcome, p.kp, mls.JoinOptions{Signer: p.signer})
	p.check(err)
}

func (p *ours) commit(add [][]byte, remove []uint32, extensions []roster.Extension) (commit, welcome []byte) {
	p.t.Helper()
	o := mls.CommitOptions{Add: add, Remove: remove, Now: time.Now(), AuthenticatedData: []byte{1, 2}}
	if extensions != nil {
		list := roster.Extensions(extensions)
		o.Extensions = &list
	}
	var err error
	p.pending, err = p.group.Commit(o)
	p.check(err)
	return p.pending.Commit, p.pending.Welcome
}

func (p *ours) merge() {
	var err error
	p.group, err = p.pending.Merge()
	p.check(err)
}

func (p *ours) process(msg []byte) []byte {
	p.t.Helper()
	done, err := p.group.Process(msg, time.Time{})
	p.check(err)
	switch {
	case done.Commit != nil:
		p.group, err = done.Commit.Merge()
		p.check(err)
	case done.Proposal != nil:
		p.group = done.Group
	default:
		return done.Application.Plaintext
	}
	return nil
}

func (p *ours) seal(plaintext []byte) []byte {
	p.t.Helper()
	msg, _, err := p.group.Seal(plaintext, []byte{10})
	p.check(err)
	return msg
}

func (p *ours) proposeRemove(leaf uint32) []byte {
	p.t.Helper()
	msg, next, err := p.group.ProposeRemove(leaf, nil)
	p.check(err)
	p.group = next
	return msg
}

func (p *ours) leaf(of string) uint32 {
	p.t.Helper()
	m, ok := p.group.Roster().MemberByIdentity([]byte(of))
	if !ok {
		p.t.Fatalf("no member %s", of)
	}
	return m.Leaf
}

func (p *ours) state() (uint64, []byte, []byte) {
	p.t.Helper()
	exported, err := p.group.Export("letterlock slot", []byte{0xaa, 0xbb}, 32)
	p.check(err)
	return p.group.Epoch(), p.group.EpochAuthenticator(), exported
}

// room is a group with members of both kinds.
type room struct {
	t       *testing.T
	d       *driver
	members []party
}

// commit has one member commit, and all others, those added too, take it over.
func (r *room) commit(from party, added []party, removed []string, extensions []roster.Extension) {
	r.t.Helper()
	var packages [][]byte
	for _, p := range added {
		packages = append(packages, p.keyPackage())
	}
	var leaves []uint32
	for _, name := range removed {
		leaves = append(leaves, from.leaf(name))
	}
	commit, welcome := from.commit(packages, leaves, extensions)
	r.follow(from, commit, removed)
	for _, p := range added {
		p.join(welcome)
		r.members = append(r.members, p)
	}
	r.agree()
}

// follow delivers a commit to all who stay.
func (r *room) follow(from party, commit []byte, removed []string) {
	r.t.Helper()
	var stay []party
	for _, p := range r.members {
		if contains(removed, p.name()) {
			continue
		}
		stay = append(stay, p)
		if p == from {
			p.merge()
		} else {
			p.process(commit)
		}
	}
	r.members = stay
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// agree: one epoch, one authenticator, one exported secret.
func (r *room) agree() {
	r.t.Helper()
	epoch, authenticator, exported := r.members[0].state()
	for _, p := range r.members[1:] {
		e, a, x := p.state()
		if e != epoch || !bytes.Equal(a, authenticator) || !bytes.Equal(x, exported) {
			r.t.Fatalf("%s has another state than %s", p.name(), r.members[0].name())
		}
	}
}

// talk has everybody send twice to everybody.
func (r *room) talk() {
	r.t.Helper()
	for _, from := range r.members {
		for i := range 2 {
			plaintext := []byte(fmt.Sprintf("%d from %s", i, from.name()))
			msg := from.seal(plaintext)
			for _, to := range r.members {
				if to != from && !bytes.Equal(to.process(msg), plaintext) {
					r.t.Fatalf("%s did not read what %s sent", to.name(), from.name())
				}
			}
		}
	}
}

// publicGroup finds the group in one of our members.
func (r *room) publicGroup() *roster.Group {
	for _, p := range r.members {
		if o, ok := p.(*ours); ok && o.group != nil {
			return o.group.Roster()
		}
	}
	r.t.Fatal("no member of ours")
	return nil
}

func (r *room) theirs(id string) *theirs { return &theirs{r.d, id, r.publicGroup} }

func groupExtensions() []roster.Extension {
	return []roster.Extension{
		roster.RequiredCapabilities{Extensions: []uint16{roster.ExtLetterlock}}.Extension(),
		{Type: roster.ExtLetterlock, Data: []byte("grants")},
	}
}

// TestOursCreates: a group of ours takes in clients of ts-mls, which then commit, add, remove and propose.
func TestOursCreates(t *testing.T) {
	r := &room{t: t, d: startDriver(t)}
	alice := newOurs(t, "alice")
	group, err := mls.Create(mls.CreateOptions{
		GroupID: []byte("room"), Identity: []byte("alice"), Signer: alice.signer, Extensions: groupExtensions(),
		SupportedExtensions: []uint16{roster.ExtLetterlock}, Now: time.Now(),
	})
	alice.check(err)
	alice.group = group
	r.members = []party{alice}
	r.story(alice)
}

// TestTheirsCreates: the other way round.
func TestTheirsCreates(t *testing.T) {
	r := &room{t: t, d: startDriver(t)}
	carol := r.theirs("carol")
	carol.keyPackage()
	r.d.call("create", "carol", fields{"groupID": "aabb", "extensions": jsonExtensions(groupExtensions())}, nil)
	r.members = []party{carol}
	r.story(carol)
}

// story is what both directions go through.
func (r *room) story(creator party) {
	t := r.t
	t.Helper()
	bob, dave := newOurs(t, "bob"), r.theirs("dave")
	r.commit(creator, []party{bob, dave}, nil, nil)
	r.talk()
	for _, p := range append([]party(nil), r.members...) { // everybody renews its path
		r.commit(p, nil, nil, nil)
	}
	r.talk()

	erin, frank := newOurs(t, "erin"), r.theirs("frank")
	r.commit(dave, []party{erin, frank}, nil, nil)
	r.commit(bob, nil, nil, append(groupExtensions()[:1], roster.Extension{Type: roster.ExtLetterlock, Data: []byte("other grants")}))
	r.talk()

	r.commit(erin, nil, []string{"dave"}, nil)
	r.commit(frank, nil, []string{"bob"}, nil)
	r.talk()
	r.byReference(frank, erin, creator.name())
	r.talk()

	grace := newOurs(t, "grace")
	r.commit(frank, []party{grace}, nil, nil)
	r.commit(grace, []party{r.theirs("heidi")}, []string{"erin"}, nil)
	r.talk()
}

// byReference: one proposes to remove somebody, another commits that by reference.
func (r *room) byReference(proposer, committer party, removed string) {
	r.t.Helper()
	msg := proposer.proposeRemove(proposer.leaf(removed))
	for _, p := range r.members {
		if p != proposer {
			p.process(msg)
		}
	}
	commit, _ := committer.commit(nil, nil, nil)
	r.follow(committer, commit, []string{removed})
	r.agree()
}

// TestTheyRefuseOurRemoved: after a removal by us the removed client of ts-mls reads nothing.
func TestTheyRefuseOurRemoved(t *testing.T) {
	r := &room{t: t, d: startDriver(t)}
	alice := newOurs(t, "alice")
	var err error
	alice.group, err = mls.Create(mls.CreateOptions{GroupID: []byte("room"), Identity: []byte("alice"), Signer: alice.signer, Now: time.Now()})
	alice.check(err)
	r.members = []party{alice}
	bob, carol := newOurs(t, "bob"), r.theirs("carol")
	r.commit(alice, []party{bob, carol}, nil, nil)
	r.commit(alice, nil, []string{"carol"}, nil)
	if err := r.d.try("process", "carol", fields{"message": hex.EncodeToString(alice.seal([]byte("not for carol")))}, nil); err == nil {
		t.Fatal("a removed member reads on")
	}
}
