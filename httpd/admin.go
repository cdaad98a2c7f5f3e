package httpd

import (
	"context"
	"log/slog"
	"net/http"

	"letterlock/api"
)

const maxRegistrationBody = 128 << 10 // an offer has at most 16 KiB, the client's keys 16 KiB

// RouteAdmin serves api.Admin. It asks nobody who they are: mount it on the admin socket alone, which only the operator can open.
func RouteAdmin(mux *http.ServeMux, a api.Admin, log *slog.Logger) {
	s := &server{Config: Config{Logger: log}}
	route := func(pattern string, h handler) { mux.Handle(pattern, s.recovered(s.open(h))) }
	partner := func(r *http.Request) string { return r.PathValue("id") }

	route("GET /admin/v1/status", get(func(r *http.Request) (api.Status, error) { return a.Status(r.Context()) }))
	route("GET /admin/v1/partners", get(func(r *http.Request) (api.AgreementList, error) { return a.ListAgreements(r.Context()) }))
	route("GET /admin/v1/partners/{id}", get(func(r *http.Request) (api.AgreementInForce, error) {
		return a.GetAgreement(r.Context(), partner(r))
	}))
	route("POST /admin/v1/partners", call(maxRegistrationBody, a.PutPartner))
	route("POST /admin/v1/partners/{id}/stop", about(maxSmallBody, a.StopPartner))
	route("POST /admin/v1/partners/{id}/resume", do(func(r *http.Request) error { return a.ResumePartner(r.Context(), partner(r)) }))
	route("POST /admin/v1/partners/{id}/figures", about(maxFiguresBody, a.PutPartnerFigures))
	route("POST /admin/v1/reports", call(maxSmallBody, a.BuildReport))
}

// RouteAccountAdmin serves api.AccountAdmin, on the admin socket alone like RouteAdmin. {id} is a handle, or an invitation's id.
func RouteAccountAdmin(mux *http.ServeMux, a api.AccountAdmin, log *slog.Logger) {
	s := &server{Config: Config{Logger: log}}
	route := func(pattern string, h handler) { mux.Handle(pattern, s.recovered(s.open(h))) }

	route("POST /admin/v1/accounts/{id}/block", about(maxSmallBody, a.BlockAccount))
	route("POST /admin/v1/accounts/{id}/unblock", do(func(r *http.Request) error { return a.UnblockAccount(r.Context(), r.PathValue("id")) }))
	route("GET /admin/v1/accounts/{id}", get(func(r *http.Request) (api.AccountStanding, error) {
		return a.ShowAccount(r.Context(), r.PathValue("id"))
	}))
	route("GET /admin/v1/blocked", get(func(r *http.Request) (api.AccountStandings, error) { return a.ListBlocked(r.Context()) }))
	route("POST /admin/v1/invites", call(maxSmallBody, a.CreateInvite))
	route("GET /admin/v1/invites", get(func(r *http.Request) (api.InviteList, error) { return a.ListInvites(r.Context()) }))
	route("POST /admin/v1/invites/{id}/revoke", do(func(r *http.Request) error { return a.RevokeInvite(r.Context(), r.PathValue("id")) }))
}

// RouteReleases serves api.ReleaseAdmin, on the admin socket alone like RouteAdmin.
func RouteReleases(mux *http.ServeMux, a api.ReleaseAdmin, log *slog.Logger) {
	s := &server{Config: Config{Logger: log}}
	mux.Handle("POST /admin/v1/releases", s.recovered(s.open(call(maxSmallBody, a.AddRelease))))
	mux.Handle("GET /admin/v1/releases", s.recovered(s.open(get(func(r *http.Request) (api.ReleaseList, error) { return a.ListReleases(r.Context()) }))))
}

// about serves a call that takes JSON about who is named in the path and answers 204.
func about[In any](limit int64, f func(context.Context, string, In) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		return put(limit, func(ctx context.Context, in In) error { return f(ctx, r.PathValue("id"), in) })(w, r)
	}
}
