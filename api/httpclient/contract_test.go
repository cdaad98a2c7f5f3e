package httpclient_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/api/httpclient"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/httpd"
)

// backend notes each call that arrives, and answers with nothing.
type backend struct {
	api.Accounts // proven in the other tests
	mu           sync.Mutex
	calls        []string
}

func note[T any](b *backend, name string, args ...any) (out T, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, strings.TrimSuffix(fmt.Sprintln(append([]any{name}, args...)...), "\n"))
	return out, nil
}

func only(b *backend, name string, args ...any) error {
	_, err := note[struct{}](b, name, args...)
	return err
}

func (b *backend) Authenticate(_ context.Context, r dpop.Request) (api.Caller, error) {
	if r.Token != "session" {
		return api.Caller{}, chat.Errorf(chat.Unauthenticated, "no")
	}
	return api.Caller{}, nil
}

type agents struct{}

func (agents) Authenticate(_ context.Context, r dpop.Request) (api.AgentCaller, error) {
	if r.Token != "access" {
		return api.AgentCaller{}, chat.Errorf(chat.Unauthenticated, "no")
	}
	return api.AgentCaller{}, nil
}

func (b *backend) Found(_ context.Context, r api.NewConversation) (api.Conversation, error) {
	return note[api.Conversation](b, "found", r)
}
func (b *backend) ListConversations(context.Context) (api.ConversationList, error) {
	return note[api.ConversationList](b, "conversations")
}
func (b *backend) GetConversation(_ context.Context, c chat.ConversationID) (api.Conversation, error) {
	return note[api.Conversation](b, "conversation", c)
}
func (b *backend) Commit(_ context.Context, c chat.ConversationID, r api.Commit) (api.Accepted, error) {
	return note[api.Accepted](b, "commit", c, r)
}
func (b *backend) SendMessage(_ context.Context, c chat.ConversationID, r api.Message) (api.Accepted, error) {
	return note[api.Accepted](b, "send", c, r)
}
func (b *backend) Log(_ context.Context, c chat.ConversationID, after uint64, limit, wait int) (api.Page, error) {
	return note[api.Page](b, "log", c, after, limit, wait)
}
func (b *backend) DeleteMessage(_ context.Context, c chat.ConversationID, seq uint64) error {
	return only(b, "delete", c, seq)
}
func (b *backend) Welcomes(_ context.Context, wait int) (api.Mailbox, error) {
	return note[api.Mailbox](b, "welcomes", wait)
}
func (b *backend) DeleteWelcome(_ context.Context, id chat.MessageID) error {
	return only(b, "delete welcome", id)
}
func (b *backend) OwnCount(_ context.Context, c chat.ConversationID) (api.OwnCount, error) {
	return note[api.OwnCount](b, "own count", c)
}
func (b *backend) ListPartners(context.Context) (api.PartnerList, error) {
	return note[api.PartnerList](b, "partners")
}
func (b *backend) GetConsent(_ context.Context, id string) (api.ConsentRequest, error) {
	return note[api.ConsentRequest](b, "consent", id)
}
func (b *backend) PutGrant(_ context.Context, r api.PutGrant) (api.Record, error) {
	return note[api.Record](b, "grant", r)
}
func (b *backend) FinishConsent(_ context.Context, id string) (api.Redirect, error) {
	return note[api.Redirect](b, "finish", id)
}
func (b *backend) RefuseConsent(_ context.Context, id string) (api.Redirect, error) {
	return note[api.Redirect](b, "refuse", id)
}
func (b *backend) ListGrants(context.Context) (api.GrantList, error) {
	return note[api.GrantList](b, "grants")
}
func (b *backend) Records(_ context.Context, q api.RecordQuery) (api.RecordList, error) {
	return note[api.RecordList](b, "records", q)
}
func (b *backend) Completeness(_ context.Context, r api.Completeness) (api.CompletenessProof, error) {
	return note[api.CompletenessProof](b, "completeness", r)
}
func (b *backend) EraseRecords(_ context.Context, r api.EraseRecords) (api.ErasedRecords, error) {
	return note[api.ErasedRecords](b, "erase", r)
}
func (b *backend) Bundle(_ context.Context, partner string) ([]byte, error) {
	return note[[]byte](b, "bundle", partner)
}

// inbox is the partner's half of the backend.
type inbox struct{ *backend }

func (b inbox) Grant(context.Context) (api.InboxGrant, error) {
	return note[api.InboxGrant](b.backend, "my grant")
}
func (b inbox) Slot(context.Context) (api.InboxSlot, error) {
	return note[api.InboxSlot](b.backend, "slot")
}
func (b inbox) Post(_ context.Context, r api.InboxPost) (api.Accepted, error) {
	return note[api.Accepted](b.backend, "post", r)
}
func (b inbox) TakeBack(_ context.Context, r api.InboxTakeBack) (api.Accepted, error) {
	return note[api.Accepted](b.backend, "take back", r)
}
func (b inbox) Welcome(context.Context) (api.MailboxWelcome, error) {
	return note[api.MailboxWelcome](b.backend, "my welcome")
}
func (b inbox) Changes(_ context.Context, since string, limit int) (api.InboxChanges, error) {
	return note[api.InboxChanges](b.backend, "changes", since, limit)
}
func (b inbox) CloseAccess(_ context.Context, receipt []byte) error {
	return only(b.backend, "receipt", receipt)
}
func (b inbox) Link(_ context.Context, r api.InboxLink) (api.InboxLinked, error) {
	return note[api.InboxLinked](b.backend, "link", r)
}
func (b inbox) PutFigures(_ context.Context, r api.InboxFigures) error {
	return only(b.backend, "figures", r)
}

// access gives the token, after a stale one.
type access struct{ renewals int }

func (a *access) Token(_ context.Context, refused string) (string, error) {
	if refused == "" {
		return "stale", nil
	}
	a.renewals++
	return "access", nil
}

// TestEveryCallArrives makes every call of the contract through client and server: each must reach the method of its name with what
// it was called with.
func TestEveryCallArrives(t *testing.T) {
	b := &backend{}
	log := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note[int](b, r.URL.RequestURI())
		answer := "[]"
		if r.URL.Path == "/log/public" {
			answer = "{}"
		}
		io.WriteString(w, answer)
	})
	s := httptest.NewUnstartedServer(nil)
	url := "http://" + s.Listener.Addr().String()
	s.Config.Handler = httpd.New(httpd.Config{
		PublicURL: url, Accounts: b, Conversations: b, Permission: b, Inbox: inbox{b}, Sessions: b, Agents: agents{}, Log: log,
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	s.Start()
	defer s.Close()

	_, key, _ := ed25519.GenerateKey(rand.Reader)
	o := httpclient.Options{BaseURL: url, Now: time.Now, Rand: rand.Reader}
	d, err := httpclient.NewDevice(o, key, api.SignIn{Account: chat.NewAccountID()}, "session")
	if err != nil {
		t.Fatal(err)
	}
	tokens := &access{}
	a, err := httpclient.NewAgent(o, key, tokens)
	if err != nil {
		t.Fatal(err)
	}
	ctx, c, id, leaf := t.Context(), chat.NewConversationID(), chat.MessageID{1}, [32]byte{2}
	call := func(want string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if len(b.calls) != 1 || b.calls[0] != want {
			t.Errorf("arrived %q, want %q", b.calls, want)
		}
		b.calls = nil
	}
	line := func(args ...any) string { return strings.TrimSuffix(fmt.Sprintln(args...), "\n") }

	founding := api.NewConversation{GroupInfo: []byte{1}}
	_, err = d.Found(ctx, founding)
	call(line("found", founding), err)
	_, err = d.ListConversations(ctx)
	call("conversations", err)
	_, err = d.GetConversation(ctx, c)
	call(line("conversation", c), err)
	commit := api.Commit{Commit: []byte{1}, Welcome: []byte{2}, Slot: []byte{3}, Revocations: [][]byte{{4}}, DedupKey: []byte{5}}
	_, err = d.Commit(ctx, c, commit)
	call(line("commit", c, commit), err)
	message := api.Message{Message: []byte{1}, DedupKey: []byte{2}}
	_, err = d.SendMessage(ctx, c, message)
	call(line("send", c, message), err)
	_, err = d.Log(ctx, c, 7, 8, 9)
	call(line("log", c, 7, 8, 9), err)
	call(line("delete", c, 7), d.DeleteMessage(ctx, c, 7))
	_, err = d.Welcomes(ctx, 9)
	call(line("welcomes", 9), err)
	call(line("delete welcome", id), d.DeleteWelcome(ctx, id))
	_, err = d.OwnCount(ctx, c)
	call(line("own count", c), err)

	_, err = d.ListPartners(ctx)
	call("partners", err)
	_, err = d.GetConsent(ctx, "a-request")
	call("consent a-request", err)
	grant := api.PutGrant{Request: "a-request", Signed: []byte{1}}
	_, err = d.PutGrant(ctx, grant)
	call(line("grant", grant), err)
	_, err = d.FinishConsent(ctx, "a-request")
	call("finish a-request", err)
	_, err = d.RefuseConsent(ctx, "a-request")
	call("refuse a-request", err)
	_, err = d.ListGrants(ctx)
	call("grants", err)
	query := api.RecordQuery{Partner: "flimmer", Chain: "access", From: 3, Limit: 4}
	_, err = d.Records(ctx, query)
	call(line("records", query), err)
	_, err = d.Bundle(ctx, "flimmer")
	call("bundle flimmer", err)
	_, err = d.InclusionProof(ctx, leaf, 9)
	call("/log/proof/"+hex.EncodeToString(leaf[:])+"?wait=9", err)
	_, err = d.Checkpoint(ctx)
	call("/log/checkpoint", err)
	_, err = d.ConsistencyProof(ctx, 3, 4)
	call("/log/consistency?from=3&to=4", err)
	_, err = d.PublicEntries(ctx, 5)
	call("/log/public?from=5", err)
	_, err = d.Policies(ctx)
	call("/log/policies", err)
	ends := api.Completeness{Chains: []api.ChainEnd{{Partner: "flimmer", Chain: "access", Next: 3}}}
	_, err = d.Completeness(ctx, ends)
	call(line("completeness", ends), err)
	erase := api.EraseRecords{Partner: "flimmer", Control: 1, Access: 2}
	_, err = d.EraseRecords(ctx, erase)
	call(line("erase", erase), err)

	_, err = a.Grant(ctx)
	call("my grant", err)
	if tokens.renewals != 1 {
		t.Errorf("a stale token was renewed %d times", tokens.renewals)
	}
	_, err = a.Slot(ctx)
	call("slot", err)
	post := api.InboxPost{Post: []byte{1}, IdempotencyKey: "k"}
	_, err = a.Post(ctx, post)
	call(line("post", post), err)
	back := api.InboxTakeBack{TakeBack: []byte{1}, IdempotencyKey: "k"}
	_, err = a.TakeBack(ctx, back)
	call(line("take back", back), err)
	_, err = a.Welcome(ctx)
	call("my welcome", err)
	_, err = a.Changes(ctx, "s", 4)
	call("changes s 4", err)
	call(line("receipt", []byte{1}), a.CloseAccess(ctx, []byte{1}))
	link := api.InboxLink{}
	_, err = a.Link(ctx, link)
	call(line("link", link), err)
	figures := api.InboxFigures{}
	call(line("figures", figures), a.PutFigures(ctx, figures))
}
