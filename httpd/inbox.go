package httpd

import (
	"context"
	"net/http"

	"letterlock/api"
	"letterlock/chat"
)

// Links knows where share links lead: report.Service.
type Links interface {
	// Follow counts one click.
	Follow(ctx context.Context, id string) (to string, err error)
}

// The largest bodies of the Inbox calls, in bytes.
const (
	maxPostBody     = api.MaxMessage*4/3 + 1<<10
	maxTakeBackBody = 4 << 10
	maxReceiptBody  = 2 << 10
	maxFiguresBody  = 512 << 10
	maxState        = 64 // of sinceState
)

// routesInbox serves api.Inbox to agents, and share links to everybody.
func (s *server) routesInbox(mux *http.ServeMux) {
	if s.Links != nil {
		mux.Handle("/l/{id}", s.open(s.follow))
	}
	if s.Inbox == nil {
		return
	}
	i := s.Inbox
	mux.Handle("GET /inbox/v1/grant", s.agent(get(func(r *http.Request) (api.InboxGrant, error) { return i.Grant(r.Context()) })))
	mux.Handle("GET /inbox/v1/slot", s.agent(get(func(r *http.Request) (api.InboxSlot, error) { return i.Slot(r.Context()) })))
	mux.Handle("POST /inbox/v1/posts", s.agent(call(maxPostBody, i.Post)))
	mux.Handle("POST /inbox/v1/take-backs", s.agent(call(maxTakeBackBody, i.TakeBack)))
	mux.Handle("GET /inbox/v1/welcome", s.agent(get(func(r *http.Request) (api.MailboxWelcome, error) { return i.Welcome(r.Context()) })))
	mux.Handle("GET /inbox/v1/changes", s.agent(get(s.changes)))
	mux.Handle("POST /inbox/v1/receipts", s.open(put(maxReceiptBody, func(ctx context.Context, r receipt) error { return i.CloseAccess(ctx, r.Receipt) })))
	mux.Handle("POST /inbox/v1/links", s.agent(call(maxTakeBackBody, i.Link)))
	mux.Handle("POST /inbox/v1/figures", s.agent(put(maxFiguresBody, i.PutFigures)))
}

// receipt is the body of CloseAccess. The signature in it says whose it is, so that it needs no token: a grant's last receipt comes when
// its tokens are over.
type receipt struct {
	Receipt []byte `json:"receipt"`
}

func (s *server) changes(r *http.Request) (api.InboxChanges, error) {
	limit, err := queryUint(r, "limit", 0, maxLimit)
	if err != nil {
		return api.InboxChanges{}, err
	}
	since := r.URL.Query().Get("sinceState")
	if len(since) > maxState {
		return api.InboxChanges{}, chat.Errorf(chat.Invalid, "sinceState is not one that was given here")
	}
	return s.Inbox.Changes(r.Context(), since, int(limit))
}

// follow leads a click on. One click is one GET: a HEAD, as previews make it, is not answered, and nothing about who asks is kept.
func (s *server) follow(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return nil
	}
	to, err := s.Links.Follow(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusFound)
	return nil
}
