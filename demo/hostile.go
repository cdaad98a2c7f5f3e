package demo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/keychain"
	"letterlock/ledger"
	"letterlock/proof"
)

// hostile is the story of a server that lies.
type hostile struct {
	story
	liar *liar
	keys *ledger.Keys // the operator's
	old  *proof.Head  // what the ledger was before
}

// PlayHostile runs a malicious server before people's own clients: each lie is told live, and prints the sentence that caught it.
func PlayHostile(ctx context.Context, s *Stage, out io.Writer) error {
	h := &hostile{story: story{Stage: s, out: out}}
	if err := h.open(ctx); err != nil {
		return err
	}
	defer h.liar.http.Close()
	lies := []struct {
		what string
		tell func(context.Context) error // returns what the victim was told
		want string
	}{
		{"Bob's keys are swapped for Alice alone", h.swapKeys, "are shown to you alone"},
		{"the last record of Alice's history is left out", h.leaveOut(-1), "left out record"},
		{"one in the middle is left out", h.leaveOut(0), "left out record"},
		{"one record is altered", h.alter, "was altered"},
		{"an agreement is hidden from Alice", h.hideAgreement, "leaves out public entry"},
		{"yesterday's checkpoint is shown as today's", h.showOld, "contradicts what this device remembers"},
		{"Bob is shown another ledger than Alice", h.fork, "contradicts what this device remembers"},
		{"a witness is asked to sign that fork", h.askWitness, "refused"},
		{"a file says \"never\", and the grant was taken out of it", h.emptyBundle, "this file proves nothing"},
		{"a byte of the file is changed", h.flipBundle, "this file proves nothing"},
	}
	for i, l := range lies {
		told := l.tell(ctx)
		if told == nil || !strings.Contains(told.Error(), l.want) {
			fmt.Fprintf(out, "%2d. NOT CAUGHT  %s\n", i+1, l.what)
			return fmt.Errorf("%w: %s: the victim was told %v", ErrCheck, l.what, told)
		}
		fmt.Fprintf(out, "%2d. caught  %s:\n        | %s\n", i+1, l.what, sentence(told))
		if i == 0 {
			if err := h.live(ctx); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(out, "\nAll %d lies were caught.\n", len(lies))
	return nil
}

// sentence is what a command said when it failed.
func sentence(err error) string {
	var f *Failure
	if !errors.As(err, &f) {
		return err.Error()
	}
	return strings.TrimPrefix(strings.TrimSpace(f.Stderr), "letterlock: ")
}

// open starts the server behind the liar, and signs Alice and Bob up.
func (h *hostile) open(ctx context.Context) (err error) {
	behind, err := freePort()
	if err != nil {
		return err
	}
	if h.liar, err = startLiar(h.Port, behind); err != nil {
		return err
	}
	if err := h.StartWitnessed(ctx, "--listen", fmt.Sprintf("127.0.0.1:%d", behind), "--public-url", h.URL()); err != nil {
		return err
	}
	if h.keys, err = ledger.ReadKeys(filepath.Join(h.Home("server"), "keys")); err != nil {
		return err
	}
	return h.signUp(ctx)
}

// live makes them friends and lets Flimmer recommend three films.
func (h *hostile) live(ctx context.Context) (err error) {
	for _, step := range []func(context.Context) error{h.befriend, h.startFlimmer, h.allowSend} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if h.old, err = h.head(ctx); err != nil {
		return err
	}
	for _, title := range []string{"Metropolis", "Nosferatu", "M"} {
		err := h.agent.Call(ctx, http.MethodPost, "/messages", map[string]any{"grant": h.grant, "text": title}, nil)
		if err != nil {
			return err
		}
	}
	return h.Client(ctx, "alice", nil, "check") // her device remembers this
}

// head is the newest checkpoint with its map root.
func (h *hostile) head(ctx context.Context) (*proof.Head, error) {
	var page api.PublicEntries
	if err := getJSON(ctx, h.URL()+"/log/public", &page); err != nil {
		return nil, err
	}
	return proof.ParseHead(page.Head)
}

// shows is the lie that the ledger stands at this head.
func shows(head *proof.Head) lie {
	return func(r *http.Request, answer []byte) []byte {
		if r.URL.Path == "/log/checkpoint" {
			return head.Checkpoint
		}
		return answers("/", func(v map[string]any) {
			if _, ok := v["head"]; ok {
				v["head"] = head.Bytes()
			}
			if _, ok := v["entries"]; ok {
				v["entries"] = []any{}
			}
		})(r, answer)
	}
}

// check is what a person's client does by itself once a day. It checks on a copy of its folder, so that the next lie meets a device that
// has caught none.
func (h *hostile) check(ctx context.Context, who string) error {
	copied := who + "-copy"
	defer os.RemoveAll(h.Home(copied))
	if err := copyFolder(h.Home(copied), h.Home(who)); err != nil {
		return err
	}
	return h.Client(ctx, copied, nil, "check")
}

// answers is a lie about one address.
func answers(path string, change func(answer map[string]any)) lie {
	return func(r *http.Request, answer []byte) []byte {
		if !strings.HasPrefix(r.URL.Path, path) {
			return answer
		}
		var v map[string]any
		if json.Unmarshal(answer, &v) != nil {
			return answer
		}
		change(v)
		changed, err := json.Marshal(v)
		if err != nil {
			return answer
		}
		return changed
	}
}

func (h *hostile) swapKeys(ctx context.Context) error {
	made, err := madeUp(h.host(), "bob")
	if err != nil {
		return err
	}
	swap := answers("/v1/accounts/bob", func(v map[string]any) {
		v["account"], v["chain"] = made.Account(), made.Entries()
	})
	return h.liar.tells(swap, func() error { return h.Client(ctx, "alice", nil, "friends", "add", "bob") })
}

func (h *hostile) host() string {
	u, err := url.Parse(h.URL())
	if err != nil {
		return ""
	}
	return u.Host
}

// madeUp is a key chain that the operator made under somebody's name.
func madeUp(host, handle string) (*keychain.Chain, error) {
	key, err := keychain.NewDeviceKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	_, recovery, err := keychain.NewRecovery(rand.Reader)
	if err != nil {
		return nil, err
	}
	entry, err := keychain.Create(keychain.Creation{Account: chat.NewAccountID(), Host: host, Handle: handle, Device: chat.NewDeviceID(), Name: "laptop", At: time.Now()}, key, recovery)
	if err != nil {
		return nil, err
	}
	return keychain.Open([][]byte{entry})
}

// leaveOut leaves a record out of Alice's access chain: of so many from the start, or the last one.
func (h *hostile) leaveOut(at int) func(context.Context) error {
	lie := func(r *http.Request, answer []byte) []byte {
		if r.URL.Query().Get("chain") != "access" {
			return answer
		}
		return answers("/v1/records", func(v map[string]any) {
			list, _ := v["records"].([]any)
			i := at
			if i < 0 {
				i += len(list)
			}
			if i >= 0 && i < len(list) {
				v["records"] = append(list[:i:i], list[i+1:]...)
			}
		})(r, answer)
	}
	return func(ctx context.Context) error {
		return h.liar.tells(lie, func() error { return h.checkAfresh(ctx) })
	}
}

// checkAfresh lets a device of Alice check that has not seen the newest record, once the ledger has it.
func (h *hostile) checkAfresh(ctx context.Context) error {
	err := h.grows(ctx, func() error {
		return h.agent.Call(ctx, http.MethodPost, "/messages", map[string]any{"grant": h.grant, "text": "Faust"}, nil)
	})
	if err != nil {
		return err
	}
	return h.check(ctx, "alice")
}

// grows waits until the published ledger has what do brings into it.
func (h *hostile) grows(ctx context.Context, do func() error) error {
	before, err := h.size(ctx)
	if err == nil {
		err = do()
	}
	if err != nil {
		return err
	}
	for range 500 {
		if now, err := h.size(ctx); err != nil || now > before {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("the ledger does not grow")
}

// size is how many entries the published ledger has.
func (h *hostile) size(ctx context.Context) (int64, error) {
	head, err := h.head(ctx)
	if err != nil {
		return 0, err
	}
	leaf, err := proof.ParseLeaf(head.Leaf)
	if err != nil {
		return 0, err
	}
	return leaf.(*proof.MapRoot).Covers + 1, nil
}

func (h *hostile) alter(ctx context.Context) error {
	flip := answers("/v1/records", func(v map[string]any) {
		list, _ := v["records"].([]any)
		for _, r := range list {
			m, _ := r.(map[string]any)
			if text, ok := m["record"].(string); ok && len(text) > 200 {
				m["record"] = text[:120] + flipped(text[120]) + text[121:]
			}
		}
	})
	return h.liar.tells(flip, func() error { return h.checkAfresh(ctx) })
}

func flipped(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

// hideAgreement hides a new partner from Alice: of a partner that she does not know she would never ask what it could do.
func (h *hostile) hideAgreement(ctx context.Context) error {
	home := h.Home("tuner")
	if _, err := h.Run(ctx, "agent", "--home", home, "init", "tuner", "--server", h.URL(), "--name", "Tuner", "--link-base", "https://tuner.example/track"); err != nil {
		return err
	}
	err := h.grows(ctx, func() error {
		return h.Admin(ctx, nil, "partner", "add", filepath.Join(home, "registration.json"), "--yes")
	})
	if err != nil {
		return err
	}
	hide := answers("/log/public", func(v map[string]any) { v["entries"] = []any{} })
	return h.liar.tells(hide, func() error { return h.check(ctx, "alice") })
}

func (h *hostile) showOld(ctx context.Context) error {
	return h.liar.tells(shows(h.old), func() error { return h.check(ctx, "alice") })
}

// forged is another ledger of the size of the newest, under the ledger's own key: its last entry alone is another one.
func (h *hostile) forged(ctx context.Context) (*proof.Head, error) {
	head, err := h.head(ctx)
	if err != nil {
		return nil, err
	}
	leaf, err := proof.ParseLeaf(head.Leaf)
	if err != nil {
		return nil, err
	}
	last := leaf.(*proof.MapRoot)
	last.At++
	root := proof.LeafHash(last.Bytes())
	for _, left := range head.Proof { // everything beside the last entry's way lies left of it
		root = tlog.NodeHash(left, root)
	}
	signed, err := proof.SignCheckpoint(h.keys.Ledger, last.Covers+1, root)
	return &proof.Head{Checkpoint: signed, Leaf: last.Bytes(), Proof: head.Proof}, err
}

// fork shows Bob the other ledger, when his device has seen the true one.
func (h *hostile) fork(ctx context.Context) error {
	if err := h.Client(ctx, "bob", nil, "check"); err != nil {
		return err
	}
	other, err := h.forged(ctx)
	if err != nil {
		return err
	}
	return h.liar.tells(shows(other), func() error { return h.check(ctx, "bob") })
}

// askWitness asks a witness for its signature under the forged tree, as the server would.
func (h *hostile) askWitness(ctx context.Context) error {
	other, err := h.forged(ctx)
	if err != nil {
		return err
	}
	size := strings.Split(string(other.Checkpoint), "\n")[1]
	body := "old " + size + "\n\n" + string(other.Checkpoint)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.Watchers[0]+"add-checkpoint", strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return fmt.Errorf("refused with %s: %s", resp.Status, strings.TrimSpace(string(answer)))
}

// bundle is Alice's file about Flimmer.
func (h *hostile) bundle(ctx context.Context) ([]byte, error) {
	file := filepath.Join(h.Dir, "alice-flimmer.json")
	if err := h.Client(ctx, "alice", nil, "proof", "flimmer", "--out", file); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// verify checks a file as a journalist would.
func (h *hostile) verify(ctx context.Context, data []byte) error {
	file := filepath.Join(h.Dir, "changed.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	_, err := h.Run(ctx, "verify", file, "--policy", h.Policy)
	return err
}

func (h *hostile) emptyBundle(ctx context.Context) error {
	data, err := h.bundle(ctx)
	if err != nil {
		return err
	}
	b, err := proof.ParseBundle(data)
	if err != nil {
		return err
	}
	b.Control, b.Access = nil, nil
	if data, err = b.Bytes(); err != nil {
		return err
	}
	return h.verify(ctx, data)
}

func (h *hostile) flipBundle(ctx context.Context) error {
	data, err := h.bundle(ctx)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return h.verify(ctx, data)
}
