package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/labelmap"
	"letterlock/ledger"
	"letterlock/proof"
)

var ctx = context.Background()

// log is a log in memory whose operator logs what it likes, and an HTTP server that shows it: tiles of all that is there, and the
// checkpoint that was published last.
type log struct {
	t      testing.TB
	keys   *ledger.Keys
	leaves [][]byte
	now    time.Time

	labels []labelmap.Entry // sorted, for honest map roots
	public uint64

	mu        sync.Mutex
	stored    []tlog.Hash
	published []byte
	altered   map[string]func([]byte) []byte // what is served at a path
	asked     []string                       // paths
	url       string
}

// newLog begins a log with its keys and a map root.
func newLog(t testing.TB) *log {
	t.Helper()
	keys, err := ledger.NewKeys("chat.example")
	if err != nil {
		t.Fatal(err)
	}
	l := &log{t: t, keys: keys, now: time.UnixMilli(1_800_000_000_000)}
	s := httptest.NewServer(http.HandlerFunc(l.serve))
	t.Cleanup(s.Close)
	l.url = s.URL
	l.begin()
	return l
}

func (l *log) begin() {
	l.leaves, l.stored, l.labels, l.public = nil, nil, nil, 0
	l.add(&proof.ServerKeys{Host: l.keys.Host(), ServerKey: [32]byte(l.keys.ServerKey()), VRFKey: [32]byte(l.keys.VRFKey()),
		LedgerVKey: l.keys.LedgerVKey(), At: l.now.UnixMilli()})
	l.root()
}

// add logs a leaf, whatever it says. The map that root uses takes the first one of each label.
func (l *log) add(leaf proof.Leaf) proof.Hash {
	l.t.Helper()
	data := leaf.Bytes()
	index, hash := int64(len(l.leaves)), proof.LeafHash(data)
	if label, ok := proof.MapLabel(leaf, l.public); ok {
		at, found := slices.BinarySearchFunc(l.labels, label, func(e labelmap.Entry, h proof.Hash) int { return bytes.Compare(e.Label[:], h[:]) })
		if !found {
			l.labels = slices.Insert(l.labels, at, labelmap.Entry{Label: label, Value: labelmap.Value(hash, index)})
		}
	}
	if leaf.Type().Public() {
		l.public++
	}
	l.addBytes(data)
	return hash
}

func (l *log) addBytes(data []byte) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	hashes, err := tlog.StoredHashes(int64(len(l.leaves)), data, reader(l.stored))
	if err != nil {
		l.t.Fatal(err)
	}
	l.leaves, l.stored = append(l.leaves, data), append(l.stored, hashes...)
}

// personal logs n personal leaves with labels of their own.
func (l *log) personal(n int) {
	for range n {
		l.add(&proof.Personal{Label: tlog.RecordHash(binary.BigEndian.AppendUint64(nil, uint64(len(l.leaves)))), Prev: [32]byte{1}})
	}
}

// honest is the map root that belongs here.
func (l *log) honest() *proof.MapRoot {
	l.now = l.now.Add(time.Second)
	return &proof.MapRoot{Covers: int64(len(l.leaves)), At: l.now.UnixMilli(), Public: l.public, Root: labelmap.Root(l.labels)}
}

func (l *log) root() { l.add(l.honest()) }

// agreement logs an agreement of Flimmer's; change may spoil it before the operator signs.
func (l *log) agreement(number uint64, root ed25519.PrivateKey, change func(*grant.Countersigned)) proof.Hash {
	l.t.Helper()
	a := grant.Agreement{Number: number, Host: l.keys.Host(), Partner: "flimmer", Name: "Flimmer", Actions: chat.Send, PostsPerMinute: 60,
		LinkBases: []string{"https://flimmer.example/film"}, NotBefore: 1_700_000_000_000, NotAfter: 1_900_000_000_000}
	offer, err := a.Offer(root)
	if err != nil {
		l.t.Fatal(err)
	}
	signed, err := grant.Countersign(offer, l.keys.Server)
	if err != nil {
		l.t.Fatal(err)
	}
	if change != nil {
		signed = spoil(l.t, signed, change)
	}
	return l.add(&proof.Agreement{Countersigned: signed})
}

// everything logs one of each kind of entry.
func (l *log) everything() {
	flimmer := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	first := l.agreement(1, flimmer, nil)
	l.personal(3)
	l.add(&proof.PartnerEnd{Partner: "flimmer", Agreement: first, At: 1, Cause: proof.CauseEnded, Reason: "replaced by a newer agreement"})
	l.root()
	l.agreement(3, flimmer, nil)
	l.add(&proof.KeyEntry{Label: proof.Hash{3}, Entry: proof.Hash{4}})
	l.add(&proof.Report{Partner: "flimmer", Start: 1_800_000_000_000})
	l.add(&proof.Release{Name: "letterlock", Version: "1.0"})
	l.add(&proof.Policy{Text: "log " + l.keys.LedgerVKey() + "\nquorum none\n"})
	l.root()
}

// checkpoint signs the tree of the first size entries.
func (l *log) checkpoint(size int) proof.Checkpoint {
	l.t.Helper()
	root, err := tlog.TreeHash(int64(size), reader(l.stored))
	if err != nil {
		l.t.Fatal(err)
	}
	signed, err := proof.SignCheckpoint(l.keys.Ledger, int64(size), root)
	if err != nil {
		l.t.Fatal(err)
	}
	return proof.Checkpoint{Size: int64(size), Root: root, Signed: signed}
}

// publish shows the tree of all that is there.
func (l *log) publish() {
	c := l.checkpoint(len(l.leaves))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.published = c.Signed
}

// alter changes what is served at a path of the log, until it is called with nil.
func (l *log) alter(path string, change func([]byte) []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.altered = map[string]func([]byte) []byte{path: change}
}

func (l *log) serve(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/log/")
	l.asked = append(l.asked, path)
	data := l.published
	if path != "checkpoint" {
		tile, err := torchwood.ParseTilePath(path)
		if err == nil {
			data, err = l.tile(tile)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
	}
	if change := l.altered[path]; change != nil {
		data = change(bytes.Clone(data))
	}
	w.Write(data)
}

func (l *log) tile(t tlog.Tile) (data []byte, err error) {
	if t.L >= 0 {
		return tlog.ReadTileData(t, reader(l.stored))
	}
	for i := t.N * torchwood.TileWidth; i < t.N*torchwood.TileWidth+int64(t.W); i++ {
		if data, err = torchwood.AppendTileEntry(data, l.leaves[i]); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// fetched lists the paths that were asked for since the last call.
func (l *log) fetched() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.asked
	l.asked = nil
	return list
}

func reader(stored []tlog.Hash) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) (list []tlog.Hash, err error) {
		for _, i := range indexes {
			if i >= int64(len(stored)) {
				return nil, http.ErrMissingFile
			}
			list = append(list, stored[i])
		}
		return list, nil
	})
}

// auditor opens an auditor of the log; closing it is the caller's, or the test's end.
func (l *log) auditor(home string) *Auditor {
	l.t.Helper()
	a, err := l.open(home)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { a.Close() })
	return a
}

func (l *log) open(home string) (*Auditor, error) {
	return Open(ctx, Config{Home: home, Log: l.keys.LedgerVKey(), Server: l.url, Now: func() time.Time { return l.now }})
}

// prove is the consistency proof that a log sends to a witness.
func (l *log) prove(_ context.Context, from, to int64) ([]proof.Hash, error) {
	p, err := tlog.ProveTree(to, from, reader(l.stored))
	list := make([]proof.Hash, len(p))
	for i, h := range p {
		list[i] = h
	}
	return list, err
}
