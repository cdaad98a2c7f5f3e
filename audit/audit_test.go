package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/proof"
)

func spoil(t testing.TB, signed []byte, change func(*grant.Countersigned)) []byte {
	t.Helper()
	var c grant.Countersigned
	if err := canon.Unmarshal(signed, &c); err != nil {
		t.Fatal(err)
	}
	change(&c)
	return canon.MustMarshal(c)
}

// TestAnHonestLog: every kind of entry is judged; a start takes up where the last one ended, without reading anything twice.
func TestAnHonestLog(t *testing.T) {
	l := newLog(t)
	l.everything()
	l.personal(600) // three tiles
	l.root()
	l.publish()
	home := t.TempDir()
	a := l.auditor(home)
	r, err := a.Published(ctx)
	if err != nil || r.Size != int64(len(l.leaves)) || r.Read != r.Size || r.Labels != 610 || r.Public != 6 || r.Agreements != 2 || r.Partners != 1 || r.Stale {
		t.Fatalf("%+v, %v", r, err)
	}
	if again, err := a.Published(ctx); err != nil || again.Read != 0 || again.Root != r.Root {
		t.Fatalf("%+v, %v", again, err)
	}
	a.Close()

	small := l.checkpoint(2)
	l.personal(5)
	l.root()
	l.publish()
	l.fetched()
	a = l.auditor(home)
	if r, err = a.Published(ctx); err != nil || r.Read != 6 || r.Labels != 615 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, path := range l.fetched() {
		if strings.HasPrefix(path, "tile/entries/000") || strings.HasPrefix(path, "tile/entries/001") {
			t.Errorf("%s was read again", path)
		}
	}
	if root, err := a.Audit(ctx, small); err != nil || root.Covers != 1 {
		t.Errorf("an older tree of the log: %+v, %v", root, err)
	}
	l.now = l.now.Add(2 * time.Hour)
	if r, err = a.Published(ctx); err != nil || !r.Stale || !strings.Contains(StaleRoot(r, l.now).Error(), "is 2h0m0s old") {
		t.Errorf("a map root of two hours ago: %+v, %v", r, err)
	}
}

// TestADamagedCopy: a copy that is not the audited tree is read again from the log, which must still contain that tree.
func TestADamagedCopy(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"flipped":  func(b []byte) []byte { b[len(b)-36] ^= 1; return b }, // in the time of the last map root, where no other entry shows it
		"cut":      func(b []byte) []byte { return b[:len(b)/2] },
		"longer":   func(b []byte) []byte { return append(b, 0, 9, 1) },
		"emptied":  func([]byte) []byte { return nil },
		"no error": func(b []byte) []byte { return b },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.everything()
			l.publish()
			home := t.TempDir()
			a := l.auditor(home)
			if _, err := a.Published(ctx); err != nil {
				t.Fatal(err)
			}
			a.Close()
			path := filepath.Join(home, entriesFile)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(bytes.Clone(data)), 0o600); err != nil {
				t.Fatal(err)
			}
			a = l.auditor(home)
			if r, err := a.Published(ctx); err != nil || r.Labels != 10 {
				t.Fatalf("%+v, %v", r, err)
			}
			l.personal(1)
			l.root()
			l.publish()
			if _, err := a.Published(ctx); err != nil {
				t.Fatal(err)
			}
			a.Close()
			if healed, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(healed, data) || len(healed) <= len(data) {
				t.Errorf("the copy holds %d bytes, before %d: %v", len(healed), len(data), err)
			}
		})
	}
}

// caught publishes what the log has become after one honest audit, and demands that the auditor names the lie, keeps evidence that
// holds, and stops for good.
func (l *log) caught(sentence string, tell func()) {
	l.t.Helper()
	home := l.t.TempDir()
	a := l.auditor(home)
	l.publish()
	if _, err := a.Published(ctx); err != nil {
		l.t.Fatalf("before the lie: %v", err)
	}
	tell()
	l.publish()
	_, err := a.Published(ctx)
	if !chat.Is(err, chat.Tampered) || !strings.Contains(err.Error(), sentence) {
		l.t.Fatalf("the auditor says %v", err)
	}
	data, err := os.ReadFile(filepath.Join(home, evidenceFile))
	if err != nil {
		l.t.Fatal(err)
	}
	if e, err := OpenEvidence(data); err != nil || !strings.Contains(e.Sentence, sentence) {
		l.t.Errorf("the evidence: %+v, %v", e, err)
	}
	if _, err := a.Audit(ctx, l.checkpoint(2)); !chat.Is(err, chat.Tampered) {
		l.t.Errorf("after the lie it vouches: %v", err)
	}
	a.Close()
	if _, err := l.open(home); !chat.Is(err, chat.Tampered) || !strings.Contains(err.Error(), sentence) {
		l.t.Errorf("the next start: %v", err)
	}
}

func TestOneLabelTwice(t *testing.T) {
	l := newLog(t)
	l.personal(4)
	l.root()
	l.caught("entry 7 has the label of entry 2: no label may stand in the log twice", func() {
		leaf, err := proof.ParseLeaf(l.leaves[2])
		if err != nil {
			t.Fatal(err)
		}
		l.add(&proof.Personal{Label: leaf.(*proof.Personal).Label, Commit: [32]byte{9}})
		l.root()
	})
}

// TestAMapRootThatDoesNotFollow: the root of a map that leaves an entry out.
func TestAMapRootThatDoesNotFollow(t *testing.T) {
	l := newLog(t)
	l.personal(3)
	l.root()
	l.caught("entry 7 is a map root that does not follow from the log", func() {
		l.personal(1)
		l.labels = l.labels[1:]
		l.root()
	})
}

func TestAMapRootOfAnotherPlace(t *testing.T) {
	l := newLog(t)
	l.caught("entry 4 is a map root that says it covers 3 entries; it covers 4", func() {
		l.personal(2)
		root := l.honest()
		root.Covers--
		l.add(root)
	})
}

func TestAMapRootThatMiscounts(t *testing.T) {
	l := newLog(t)
	l.caught("entry 3 is a map root that counts 0 public entries; there are 1", func() {
		l.add(&proof.Release{Name: "letterlock", Version: "1.0"})
		l.public = 0
		l.root()
	})
}

func TestTimeGoesBack(t *testing.T) {
	l := newLog(t)
	l.caught("entry 3 is a map root whose time goes back", func() {
		l.personal(1)
		l.now = l.now.Add(-time.Minute)
		l.root()
	})
}

func TestATreeWithoutItsMapRoot(t *testing.T) {
	l := newLog(t)
	l.caught("the tree of 5 entries does not end in a map root", func() { l.personal(3) })
}

// TestASmallerTreeWithoutItsMapRoot: also where the root follows in a larger tree that was audited first.
func TestASmallerTreeWithoutItsMapRoot(t *testing.T) {
	l := newLog(t)
	l.personal(2)
	l.root()
	l.publish()
	a := l.auditor(t.TempDir())
	if _, err := a.Published(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Audit(ctx, l.checkpoint(3)); !chat.Is(err, chat.Tampered) || !strings.Contains(err.Error(), "the tree of 3 entries does not end in a map root") {
		t.Error(err)
	}
}

func TestServerKeysTwice(t *testing.T) {
	l := newLog(t)
	l.caught("entry 2 announces server keys a second time", func() {
		other := newLog(t)
		l.addBytes(other.leaves[0])
		l.root()
	})
}

func TestALogOfOtherKeys(t *testing.T) {
	l, other := newLog(t), newLog(t)
	other.keys = l.keys // signs for l, and announces its own
	other.publish()
	a := other.auditor(t.TempDir())
	if _, err := a.Published(ctx); !chat.Is(err, chat.Tampered) || !strings.Contains(err.Error(), "entry 0 announces another ledger key than the log's") {
		t.Error(err)
	}
}

// TestAnAgreementThatDoesNotStand: either signature is missing, the number or the root key does not go on, or what ended it is about
// another one.
func TestAnAgreementThatDoesNotStand(t *testing.T) {
	_, flimmer, _ := ed25519.GenerateKey(rand.Reader)
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	for sentence, tell := range map[string]func(l *log){
		"is not signed by the partner's root key": func(l *log) {
			l.agreement(2, flimmer, func(c *grant.Countersigned) { c.Partner[5] ^= 1 })
		},
		"is not signed by this server's operator": func(l *log) {
			l.agreement(2, flimmer, func(c *grant.Countersigned) { c.Operator[5] ^= 1 })
		},
		"number 1 of flimmer, which had number 1 before": func(l *log) {
			l.agreement(1, flimmer, func(c *grant.Countersigned) {
				c.Body = bytes.Replace(c.Body, []byte("Flimmer"), []byte("Flammer"), 1)
				c.Partner = canon.Sign(flimmer, "letterlock/agreement/v1", c.Body)
				c.Operator = canon.Sign(l.keys.Server, "letterlock/agreement-operator/v1", c.Body)
			})
		},
		"under another root key than the one before": func(l *log) { l.agreement(2, other, nil) },
		"ends an agreement of flimmer that does not stand": func(l *log) {
			l.add(&proof.PartnerEnd{Partner: "flimmer", Agreement: proof.Hash{1}, Cause: proof.CauseStopped})
		},
		"ends an agreement of klang that does not stand": func(l *log) {
			l.add(&proof.PartnerEnd{Partner: "klang", Agreement: proof.LeafHash(l.leaves[2]), Cause: proof.CauseEnded})
		},
		"entry 5 ends an agreement of flimmer": func(l *log) { // a second time
			for at := range int64(2) {
				l.add(&proof.PartnerEnd{Partner: "flimmer", Agreement: proof.LeafHash(l.leaves[2]), Cause: proof.CauseEnded, At: at})
			}
		},
		"entry 4 repeats entry 2": func(l *log) { l.addBytes(l.leaves[2]) },
		"entry 4 holds a policy for another log": func(l *log) {
			l.add(&proof.Policy{Text: "log " + newLog(t).keys.LedgerVKey() + "\nquorum none\n"})
		},
		"entry 4 holds a policy that cannot be read": func(l *log) { l.add(&proof.Policy{Text: "quorum all\n"}) },
		"entry 5 has the label of entry 4": func(l *log) { // which a personal entry took that is none's
			l.add(&proof.Personal{Label: proof.PublicLabel(l.public)})
			l.add(&proof.Release{Name: "letterlock", Version: "1.0"})
		},
		"entry 4 cannot be read": func(l *log) { l.addBytes([]byte{0x83, 1, 2}) },
	} {
		t.Run(sentence, func(t *testing.T) {
			l := newLog(t)
			l.agreement(1, flimmer, nil)
			l.root()
			l.caught(sentence, func() {
				tell(l)
				l.root()
			})
		})
	}
}

// TestAFork: a larger tree that does not contain the audited one, another tree of its size, and a smaller one that it does not contain.
// Also the first sight of a fork after a restart.
func TestAFork(t *testing.T) {
	for name, size := range map[string]int{"larger": 40, "as large": 20, "smaller": 10} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.personal(20)
			l.root()
			large := l.leaves
			l.caught("the log forked: its tree of ", func() {
				l.begin()
				l.add(&proof.Personal{Label: [32]byte{1}})
				for len(l.leaves) < size+2 {
					l.personal(1)
				}
				l.root()
				if size < 20 { // what is served is the larger tree: the smaller one exists as a signature alone
					smaller := l.checkpoint(len(l.leaves))
					l.leaves, l.stored = nil, nil
					for _, leaf := range large {
						l.addBytes(leaf)
					}
					l.alter("checkpoint", func([]byte) []byte { return smaller.Signed })
				}
			})
		})
	}
}

// TestATileIsAltered: what is served is not what was signed. That convicts nobody, since anybody on the way may have done it; it is not
// vouched for, and the audit goes on when the tile is right again.
func TestATileIsAltered(t *testing.T) {
	for _, path := range []string{"tile/entries/000", "tile/entries/001.p/46", "tile/0/000", "tile/0/001.p/46", "tile/1/000.p/1"} {
		t.Run(path, func(t *testing.T) {
			l := newLog(t)
			l.personal(299)
			l.root()
			l.publish()
			l.alter(path, func(data []byte) []byte { data[len(data)-1] ^= 1; return data })
			home := t.TempDir()
			a := l.auditor(home)
			if _, err := a.Published(ctx); !chat.Is(err, chat.Unproven) || !strings.Contains(err.Error(), "the log serves a tile that is not of the tree that it signed") {
				t.Fatal(err)
			}
			l.alter(path, nil)
			if r, err := a.Published(ctx); err != nil || r.Labels != 299 {
				t.Fatalf("%+v, %v", r, err)
			}
		})
	}
}

// TestALogBegunBeforeMapRoots: its trees without a map root are not vouched for, and are no lie; the first map root covers all of them.
func TestALogBegunBeforeMapRoots(t *testing.T) {
	l := newLog(t)
	l.leaves, l.stored = l.leaves[:1], l.stored[:1]
	l.personal(5)
	l.publish()
	a := l.auditor(t.TempDir())
	if _, err := a.Published(ctx); !chat.Is(err, chat.Unavailable) || !strings.Contains(err.Error(), "has no map root yet") {
		t.Fatal(err)
	}
	l.root()
	l.publish()
	if r, err := a.Published(ctx); err != nil || r.Labels != 5 {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := a.Audit(ctx, l.checkpoint(4)); !chat.Is(err, chat.Unavailable) {
		t.Errorf("a tree of before: %v", err)
	}
}
