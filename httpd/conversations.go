package httpd

import (
	"context"
	"net/http"

	"letterlock/api"
	"letterlock/chat"
)

// The largest bodies of the conversation calls, in bytes: what they carry in base64, and room for the rest.
const (
	maxFoundingBody = 128 << 10
	maxMessageBody  = api.MaxMessage*4/3 + 1<<10
	maxCommitBody   = (api.MaxCommit+api.MaxWelcome)*4/3 + 512<<10
	maxLimit        = 1000 // entries of a page
	maxWaitSeconds  = 60   // of a long poll
)

// routesConversations serves api.Conversations.
func (s *server) routesConversations(mux *http.ServeMux) {
	if s.Conversations == nil {
		return
	}
	c := s.Conversations
	mux.Handle("POST /v1/conversations", s.authenticated(call(maxFoundingBody, c.Found)))
	mux.Handle("GET /v1/conversations", s.authenticated(get(func(r *http.Request) (api.ConversationList, error) {
		return c.ListConversations(r.Context())
	})))
	mux.Handle("GET /v1/conversations/{id}", s.authenticated(in(func(r *http.Request, id chat.ConversationID) (api.Conversation, error) {
		return c.GetConversation(r.Context(), id)
	})))
	mux.Handle("POST /v1/conversations/{id}/commits", s.authenticated(callIn(maxCommitBody, c.Commit)))
	mux.Handle("POST /v1/conversations/{id}/messages", s.authenticated(callIn(maxMessageBody, c.SendMessage)))
	mux.Handle("GET /v1/conversations/{id}/log", s.authenticated(in(s.log)))
	mux.Handle("DELETE /v1/conversations/{id}/log/{seq}", s.authenticated(do(s.deleteMessage)))
	mux.Handle("GET /v1/conversations/{id}/own-count", s.authenticated(in(func(r *http.Request, id chat.ConversationID) (api.OwnCount, error) {
		return c.OwnCount(r.Context(), id)
	})))
	mux.Handle("GET /v1/welcomes", s.authenticated(get(func(r *http.Request) (api.Mailbox, error) {
		wait, err := queryUint(r, "wait", 0, maxWaitSeconds)
		if err != nil {
			return api.Mailbox{}, err
		}
		return c.Welcomes(r.Context(), int(wait))
	})))
	mux.Handle("DELETE /v1/welcomes/{id}", s.authenticated(do(func(r *http.Request) error {
		id, err := chat.ParseMessageID(r.PathValue("id"))
		if err != nil {
			return err
		}
		return c.DeleteWelcome(r.Context(), id)
	})))
}

// in serves a call about the conversation in the path.
func in[Out any](f func(r *http.Request, id chat.ConversationID) (Out, error)) handler {
	return get(func(r *http.Request) (out Out, err error) {
		id, err := chat.ParseConversationID(r.PathValue("id"))
		if err != nil {
			return out, err
		}
		return f(r, id)
	})
}

// callIn serves a call that takes JSON about the conversation in the path.
func callIn[In, Out any](limit int64, f func(context.Context, chat.ConversationID, In) (Out, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := chat.ParseConversationID(r.PathValue("id"))
		if err != nil {
			return err
		}
		return call(limit, func(ctx context.Context, in In) (Out, error) { return f(ctx, id, in) })(w, r)
	}
}

func (s *server) log(r *http.Request, id chat.ConversationID) (api.Page, error) {
	after, err := queryUint(r, "after", 0, 1<<62)
	if err != nil {
		return api.Page{}, err
	}
	limit, err := queryUint(r, "limit", 0, maxLimit)
	if err != nil {
		return api.Page{}, err
	}
	wait, err := queryUint(r, "wait", 0, maxWaitSeconds)
	if err != nil {
		return api.Page{}, err
	}
	return s.Conversations.Log(r.Context(), id, after, int(limit), int(wait))
}

func (s *server) deleteMessage(r *http.Request) error {
	id, err := chat.ParseConversationID(r.PathValue("id"))
	if err != nil {
		return err
	}
	seq, err := pathUint(r, "seq")
	if err != nil {
		return err
	}
	return s.Conversations.DeleteMessage(r.Context(), id, seq)
}
