package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// line is a line of a conversation, as the client's JSON has it.
type line struct {
	Kind    string `json:"kind"`
	From    string `json:"from"`
	Through string `json:"through"`
	ID      string `json:"id"`
	Deleted bool   `json:"deleted"`
	Event   string `json:"event"`
	Text    string `json:"text"`
	View    *struct {
		Text string `json:"text"`
		Card *struct {
			Title string `json:"title"`
			Link  string `json:"link"`
		} `json:"card"`
	} `json:"view"`
}

// says is the text or the card's title of a line.
func (l line) says() string {
	switch {
	case l.View == nil:
		return ""
	case l.View.Card != nil:
		return l.View.Card.Title
	}
	return l.View.Text
}

type historyEntry struct {
	Chain  string `json:"chain"`
	What   string `json:"what"`
	Text   string `json:"text"`
	Proven bool   `json:"proven"`
}

type agentMessage struct {
	ID   string `json:"id"`
	From string `json:"from"`
	Text string `json:"text"`
}

// story is what the steps share.
type story struct {
	*Stage
	out     io.Writer
	step    int
	agent   *Agent
	grant   string // the one that lets Flimmer do what it may now
	old     string // the first one, which was replaced
	thread  string
	film    string // message id of the recommendation
	link    string
	private string // the private conversation's id
}

// ErrCheck means that something did not hold.
var ErrCheck = errors.New("a check did not hold")

func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrCheck, fmt.Sprintf(format, args...))
}

// Play plays the ten steps of the story, and prints one line for each with what was checked. It leaves the processes running; Close
// the stage.
func Play(ctx context.Context, s *Stage, out io.Writer) error {
	st := &story{Stage: s, out: out}
	start := time.Now()
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"Two witnesses and an auditor, a server, Alice, Bob, and Flimmer with an agreement: send, read, delete, a report every 14 days", st.begin},
		{"Alice and Bob chat privately. Flimmer asks for that conversation and is refused: it was not made for it", st.chatPrivately},
		{"Flimmer asks; Alice picks Bob and allows send alone. The grant is signed, in the ledger and in the thread", st.allowSend},
		{"Flimmer recommends \"Metropolis\". Bob reads it as \"alice, through Flimmer\"; his click is counted", st.recommend},
		{"Bob answers. Flimmer holds no key that opens it, and its attempt to read is refused", st.answerUnread},
		{"Alice allows read. Bob sees it before the next word and has it on his record; Flimmer reads the new answer, not the old one", st.allowRead},
		{"Alice deletes the recommendation inside Flimmer; it is gone for Bob", st.takeBack},
		{"Alice's history: every grant, send, read and delete, each in the ledger. Bob's: the exposure and the reads. Both check that nothing is left out", st.histories},
		{"Alice revokes. Flimmer's next call fails, and a thief's copy of all its keys and tokens opens nothing of what follows", st.revoke},
		{"The fortnight ends: the report counts one send and one click, as Flimmer does; its hash is in the ledger", st.report},
		{"A stranger checks Alice's file offline: Flimmer could read this thread over these epochs, and nothing else", st.verify},
	}
	for i, step := range steps {
		st.step = i
		if err := step.do(ctx); err != nil {
			fmt.Fprintf(out, "%2d. FAILED  %s\n", i, step.what)
			return fmt.Errorf("step %d: %w", i, err)
		}
		fmt.Fprintf(out, "%2d. ok  %s.\n", i, step.what)
	}
	fmt.Fprintf(out, "\nAll checks held, in %.1f s.\n", time.Since(start).Seconds())
	return nil
}

func (s *story) begin(ctx context.Context) error {
	if err := s.StartWitnessed(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{s.signUp, s.befriend, s.startFlimmer} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) signUp(ctx context.Context) error {
	for _, who := range []string{"alice", "bob"} {
		if err := s.Client(ctx, who, nil, "signup", who, "--server", s.URL(), "--device-name", "demo", "--policy", s.Policy); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) befriend(ctx context.Context) error {
	if err := s.Client(ctx, "alice", nil, "friends", "add", "bob"); err != nil {
		return err
	}
	return s.Client(ctx, "bob", nil, "friends", "accept", "alice")
}

func (s *story) startFlimmer(ctx context.Context) error {
	if err := s.SetUpPartner(ctx); err != nil {
		return err
	}
	agent, err := s.StartAgent(ctx, "flimmer-agent", s.Home("flimmer"), s.AgentPort)
	s.agent = agent
	return err
}

// SetUpPartner makes Flimmer's keys and offer, and accepts the agreement.
func (s *Stage) SetUpPartner(ctx context.Context) error {
	_, err := s.Run(ctx, "agent", "--home", s.Home("flimmer"), "init", "flimmer", "--server", s.URL(), "--name", "Flimmer",
		"--redirect", fmt.Sprintf("http://127.0.0.1:%d/callback", s.AgentPort),
		"--actions", "send,read,delete", "--report-days", "14", "--link-base", "https://flimmer.example/film",
		"--interface", "web", "--surface", "film-page", "--variant", "button")
	if err != nil {
		return err
	}
	return s.Admin(ctx, nil, "partner", "add", filepath.Join(s.Home("flimmer"), "registration.json"), "--yes")
}

func (s *story) chatPrivately(ctx context.Context) error {
	var sent struct{ Conversation string }
	if err := s.Client(ctx, "alice", &sent, "send", "bob", "Only for you, Bob."); err != nil {
		return err
	}
	s.private = sent.Conversation
	lines, err := s.Read(ctx, "bob", "alice")
	if err != nil {
		return err
	}
	if err := check(has(lines, "Only for you, Bob.", ""), "Bob does not see Alice's message: %+v", lines); err != nil {
		return err
	}
	url, _, err := s.ask(ctx, map[string]any{"actions": []string{"send"}, "thread": s.private})
	if err != nil {
		var refusal *Refusal
		return check(errors.As(err, &refusal), "Flimmer could ask for the private conversation: %v", err)
	}
	err = s.Client(ctx, "alice", nil, "authorize", url, "--yes")
	var failed *Failure
	return check(errors.As(err, &failed) && failed.Code == 3, "the private conversation took a partner: %v", err)
}

// ask lets Flimmer ask Alice for permission, and returns the address that Alice opens and the request's id.
func (s *story) ask(ctx context.Context, body map[string]any) (url, id string, err error) {
	var a struct{ URL, ID string }
	err = s.agent.Call(ctx, http.MethodPost, "/authorizations", body, &a)
	return a.URL, a.ID, err
}

// granted waits until the agent has what Alice allowed.
func (s *story) granted(ctx context.Context, id string) (grant, thread string, err error) {
	for range 100 {
		var a struct{ State, Detail string }
		if err := s.agent.Call(ctx, http.MethodGet, "/authorizations/"+id, nil, &a); err != nil {
			return "", "", err
		}
		switch a.State {
		case "granted":
			var g struct{ ID, Conversation string }
			err := s.agent.Call(ctx, http.MethodGet, "/grants/"+id, nil, &g)
			return g.ID, g.Conversation, err
		case "refused", "failed":
			return "", "", fmt.Errorf("the authorization is %s: %s", a.State, a.Detail)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", "", errors.New("the agent never got its grant")
}

func (s *story) allowSend(ctx context.Context) error {
	url, id, err := s.ask(ctx, map[string]any{"actions": []string{"send", "read", "delete"}, "pick": true})
	if err != nil {
		return err
	}
	if err := s.Client(ctx, "alice", nil, "authorize", url, "--friend", "bob", "--actions", "send", "--yes"); err != nil {
		return err
	}
	if s.grant, s.thread, err = s.granted(ctx, id); err != nil {
		return err
	}
	s.old = s.grant
	var grants []struct {
		Grant, By    string
		Actions      []string
		Conversation string
	}
	if err := s.Client(ctx, "bob", &grants, "grants"); err != nil {
		return err
	}
	return check(len(grants) == 1 && grants[0].Grant == s.grant && grants[0].By == "alice" && slices.Equal(grants[0].Actions, []string{"send"}),
		"Bob sees other grants than the one: %+v", grants)
}

func (s *story) recommend(ctx context.Context) error {
	var sent struct{ ID, Link string }
	err := s.agent.Call(ctx, http.MethodPost, "/messages", map[string]any{
		"grant": s.grant, "link": true, "interface": "web", "surface": "film-page", "variant": "button",
		"card": map[string]string{"kind": "film", "title": "Metropolis", "subtitle": "Fritz Lang, 1927", "url": "https://flimmer.example/film#metropolis"},
	}, &sent)
	if err != nil {
		return err
	}
	s.film = sent.ID
	lines, err := s.Read(ctx, "bob", "alice/flimmer")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(lines, func(l line) bool { return l.says() == "Metropolis" })
	if err := check(i >= 0 && lines[i].From == "alice" && lines[i].Through == "Flimmer", "Bob does not see the recommendation as Alice's through Flimmer: %+v", lines); err != nil {
		return err
	}
	s.link = lines[i].View.Card.Link
	noFollow := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := noFollow.Get(s.link)
	if err != nil {
		return err
	}
	resp.Body.Close()
	return check(resp.StatusCode == http.StatusFound && strings.HasPrefix(resp.Header.Get("Location"), "https://flimmer.example/film"),
		"the link does not lead to Flimmer: %s", resp.Status)
}

func (s *story) answerUnread(ctx context.Context) error {
	if err := s.Client(ctx, "bob", nil, "send", "alice/flimmer", "Seen it twice, this one is not for apps."); err != nil {
		return err
	}
	lines, err := s.Read(ctx, "alice", "bob/flimmer")
	if err != nil {
		return err
	}
	if err := check(has(lines, "Seen it twice, this one is not for apps.", ""), "Alice does not see the answer"); err != nil {
		return err
	}
	return s.refused(s.agent.Call(ctx, http.MethodGet, "/changes?grant="+s.grant, nil, nil), "read with send alone")
}

func (s *story) refused(err error, what string) error {
	var r *Refusal
	return check(errors.As(err, &r) && (r.Status == 403 || r.Status == 401 || r.Status == 410 || r.Status == 404), "Flimmer could %s: %v", what, err)
}

func (s *story) allowRead(ctx context.Context) error {
	url, id, err := s.ask(ctx, map[string]any{"actions": []string{"send", "read", "delete"}, "thread": s.thread})
	if err != nil {
		return err
	}
	if err := s.Client(ctx, "alice", nil, "authorize", url, "--yes"); err != nil {
		return err
	}
	if s.grant, _, err = s.granted(ctx, id); err != nil {
		return err
	}
	lines, err := s.Read(ctx, "bob", "alice/flimmer")
	if err != nil {
		return err
	}
	told := slices.ContainsFunc(lines, func(l line) bool { return l.Event == "exposed" })
	if err := check(told, "Bob was not told that Flimmer can read"); err != nil {
		return err
	}
	if err := s.expectHistory(ctx, "bob", "exposed"); err != nil {
		return err
	}
	if err := s.Client(ctx, "bob", nil, "send", "alice/flimmer", "Then let us see it on Friday."); err != nil {
		return err
	}
	texts, err := s.changes(ctx)
	if err != nil {
		return err
	}
	if err := check(slices.Contains(texts, "Then let us see it on Friday."), "Flimmer does not read the new answer: %q", texts); err != nil {
		return err
	}
	return check(!slices.Contains(texts, "Seen it twice, this one is not for apps."), "Flimmer reads an answer from before its grant")
}

func (s *story) changes(ctx context.Context) (texts []string, err error) {
	var c struct{ Messages []agentMessage }
	err = s.agent.Call(ctx, http.MethodGet, "/changes?grant="+s.grant, nil, &c)
	for _, m := range c.Messages {
		texts = append(texts, m.Text)
	}
	return texts, err
}

func (s *story) takeBack(ctx context.Context) error {
	if err := s.agent.Call(ctx, http.MethodDelete, "/messages/"+s.film+"?grant="+s.grant, nil, nil); err != nil {
		return err
	}
	lines, err := s.Read(ctx, "bob", "alice/flimmer")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(lines, func(l line) bool { return l.ID == s.film })
	return check(i >= 0 && lines[i].Deleted && lines[i].View == nil, "Bob still has the recommendation: %+v", lines)
}

func (s *story) histories(ctx context.Context) error {
	if err := s.expectHistory(ctx, "alice", "grant", "post", "open", "delete", "exposed"); err != nil {
		return err
	}
	if err := s.expectHistory(ctx, "bob", "exposed", "open"); err != nil {
		return err
	}
	for _, who := range []string{"alice", "bob"} {
		if err := s.Client(ctx, who, nil, "check"); err != nil {
			return fmt.Errorf("%s checks the ledger: %w", who, err)
		}
	}
	return nil
}

// expectHistory checks that a person's history holds these kinds of record, and that every record of it is proven.
func (s *story) expectHistory(ctx context.Context, who string, kinds ...string) error {
	var h []historyEntry
	if err := s.Client(ctx, who, &h, "history", "flimmer"); err != nil {
		return err
	}
	for _, e := range h {
		if err := check(e.Proven, "%s's record %q is not in the ledger", who, e.Text); err != nil {
			return err
		}
	}
	for _, kind := range kinds {
		found := slices.ContainsFunc(h, func(e historyEntry) bool { return e.What == kind })
		if err := check(found, "%s's history lacks %q: %+v", who, kind, h); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) revoke(ctx context.Context) error {
	// A thief copies everything that Flimmer's agent has: keys, tokens, the thread's secrets.
	if err := s.agent.Stop(); err != nil {
		return err
	}
	stolen := s.Home("stolen")
	if err := copyFolder(stolen, s.Home("flimmer")); err != nil {
		return err
	}
	agent, err := s.StartAgent(ctx, "flimmer-agent", s.Home("flimmer"), s.AgentPort)
	if err != nil {
		return err
	}
	s.agent = agent
	if err := s.Client(ctx, "alice", nil, "revoke", s.grant); err != nil {
		return err
	}
	if err := s.Client(ctx, "bob", nil, "send", "alice/flimmer", "Now we are alone again."); err != nil {
		return err
	}
	post := map[string]any{"grant": s.grant, "text": "One more film!"}
	if err := s.refused(s.agent.Call(ctx, http.MethodPost, "/messages", post, nil), "still write"); err != nil {
		return err
	}
	thief, err := s.StartAgent(ctx, "thief", stolen, 0)
	if err != nil {
		return err
	}
	defer thief.Stop()
	var c struct{ Messages []agentMessage }
	err = thief.Call(ctx, http.MethodGet, "/changes?grant="+s.grant, nil, &c)
	for _, m := range c.Messages {
		if err := check(m.Text != "Now we are alone again.", "the thief reads what was sent after the revocation"); err != nil {
			return err
		}
	}
	if err == nil {
		return check(false, "the thief's call was answered")
	}
	return s.refused(err, "read with stolen keys")
}

func (s *story) report(ctx context.Context) error {
	type cell struct {
		Day       string `json:"day"`
		Interface string `json:"interface"`
		Surface   string `json:"surface"`
		Variant   string `json:"variant"`
		Recipient string `json:"recipient"`
		Sends     int    `json:"sends"`
		Clicks    int    `json:"clicks"`
	}
	// What Flimmer counted itself.
	own, err := json.Marshal(map[string][]cell{"figures": {{time.Now().UTC().Format(time.DateOnly), "web", "film-page", "button", "not-told", 1, 1}}})
	if err != nil {
		return err
	}
	file := filepath.Join(s.Dir, "flimmer-figures.json")
	if err := os.WriteFile(file, own, 0o600); err != nil {
		return err
	}
	type sum struct {
		Count  int
		Agrees bool
	}
	var r struct {
		Report struct{ Total struct{ Sends, Clicks sum } }
		SHA256 string
		Leaf   string `json:"ledger_leaf"`
	}
	if err := s.Admin(ctx, &r, "report", "--partner", "flimmer", "--threshold", "1", "--figures", file); err != nil {
		return err
	}
	want := sum{1, true}
	if err := check(r.Report.Total.Sends == want && r.Report.Total.Clicks == want, "the report says something else: %+v", r); err != nil {
		return err
	}
	resp, err := http.Get(s.URL() + "/log/proof/" + r.Leaf + "?wait=10")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return check(resp.StatusCode == http.StatusOK, "the report's hash is not in the ledger: %s", resp.Status)
}

func (s *story) verify(ctx context.Context) error {
	file := filepath.Join(s.Dir, "alice-flimmer.json")
	if err := s.Client(ctx, "alice", nil, "proof", "flimmer", "--out", file); err != nil {
		return err
	}
	stranger, err := os.MkdirTemp(s.Dir, "stranger-")
	if err != nil {
		return err
	}
	copied := filepath.Join(stranger, "bundle.json")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		return err
	}
	out, err := s.Run(ctx, "verify", copied, "--policy", s.Policy, "--json")
	if err != nil {
		return err
	}
	var v struct {
		Kind     string
		Headline string
		Complete bool
		Handle   string
		Reads    []struct {
			Conversation string
			FromEpoch    uint64  `json:"from_epoch"`
			ToEpoch      *uint64 `json:"to_epoch"`
		}
		Grants    []struct{ Grant string }
		Sentences []string
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return err
	}
	ok := v.Kind == "access" && v.Complete && v.Handle == "alice" && len(v.Reads) == 1 && v.Reads[0].Conversation == s.thread && v.Reads[0].ToEpoch != nil && len(v.Grants) == 2
	if err := check(ok, "the file says something else: %s", out); err != nil {
		return err
	}
	for _, sentence := range append([]string{v.Headline}, v.Sentences...) {
		fmt.Fprintf(s.out, "        | %s\n", sentence)
	}
	flipped := strings.Replace(string(data), `"handle": "alice"`, `"handle": "alicf"`, 1)
	if err := os.WriteFile(copied, []byte(flipped), 0o600); err != nil {
		return err
	}
	_, err = s.Run(ctx, "verify", copied, "--policy", s.Policy)
	var failed *Failure
	return check(errors.As(err, &failed) && failed.Code == 4, "an altered file passes: %v", err)
}

// Read shows a conversation to a person.
func (s *Stage) Read(ctx context.Context, who, with string) (lines []line, err error) {
	err = s.Client(ctx, who, &lines, "read", with)
	return lines, err
}

func has(lines []line, text, through string) bool {
	return slices.ContainsFunc(lines, func(l line) bool { return l.says() == text && l.Through == through })
}

// copyFolder copies a folder as a thief would: everything, with its permissions.
func copyFolder(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, info.Mode().Perm())
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, info.Mode().Perm())
	})
}
