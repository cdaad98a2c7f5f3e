package httpd

import (
	"net/http"

	"letterlock/api"
)

// The largest bodies of the permission calls, in bytes.
const (
	maxGrantBody = 32 << 10 // a signed grant has at most 16 KiB
	maxRecords   = 500      // of a page

	maxCompletenessBody = 32 << 10 // api.MaxChainEnds chains
)

// routesPermission serves api.Permission, but for the public log, which has a handler of its own.
func (s *server) routesPermission(mux *http.ServeMux) {
	if s.Permission == nil {
		return
	}
	p := s.Permission
	mux.Handle("GET /v1/partners", s.open(get(func(r *http.Request) (api.PartnerList, error) { return p.ListPartners(r.Context()) })))
	mux.Handle("GET /v1/consents/{request}", s.authenticated(get(func(r *http.Request) (api.ConsentRequest, error) {
		return p.GetConsent(r.Context(), r.PathValue("request"))
	})))
	mux.Handle("POST /v1/consents/{request}/finish", s.authenticated(get(func(r *http.Request) (api.Redirect, error) {
		return p.FinishConsent(r.Context(), r.PathValue("request"))
	})))
	mux.Handle("POST /v1/consents/{request}/refuse", s.authenticated(get(func(r *http.Request) (api.Redirect, error) {
		return p.RefuseConsent(r.Context(), r.PathValue("request"))
	})))
	mux.Handle("POST /v1/grants", s.authenticated(call(maxGrantBody, p.PutGrant)))
	mux.Handle("GET /v1/grants", s.authenticated(get(func(r *http.Request) (api.GrantList, error) { return p.ListGrants(r.Context()) })))
	mux.Handle("GET /v1/records", s.authenticated(get(s.records)))
	mux.Handle("POST /v1/completeness", s.authenticated(call(maxCompletenessBody, p.Completeness)))
	mux.Handle("POST /v1/records/erase", s.authenticated(call(maxSmallBody, p.EraseRecords)))
	mux.Handle("GET /v1/bundle", s.authenticated(s.bundle))
}

func (s *server) records(r *http.Request) (api.RecordList, error) {
	from, err := queryUint(r, "from", 0, 1<<62)
	if err != nil {
		return api.RecordList{}, err
	}
	limit, err := queryUint(r, "limit", maxRecords, maxRecords)
	if err != nil {
		return api.RecordList{}, err
	}
	v := r.URL.Query()
	return s.Permission.Records(r.Context(), api.RecordQuery{Partner: v.Get("partner"), Chain: v.Get("chain"), From: from, Limit: int(limit)})
}

// bundle sends the file as it is: its bytes are what a verifier checks.
func (s *server) bundle(w http.ResponseWriter, r *http.Request) error {
	b, err := s.Permission.Bundle(r.Context(), r.URL.Query().Get("partner"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b) // a caller that is gone needs no answer
	return nil
}
