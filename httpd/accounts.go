package httpd

import (
	"net/http"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/dpop"
)

// The largest bodies of the accounts calls, in bytes.
const (
	maxEntryBody       = 8 << 10   // a key-chain entry has at most 2 KiB
	maxKeyPackagesBody = 512 << 10 // 100 KeyPackages of about 1 KiB in base64, with room
	maxSmallBody       = 4 << 10
)

// routesAccounts serves api.Accounts. PUT of a friend has no body.
func (s *server) routesAccounts(mux *http.ServeMux) {
	if s.Accounts == nil {
		return
	}
	a := s.Accounts
	mux.Handle("GET /.well-known/letterlock", s.open(get(func(r *http.Request) (api.Server, error) { return a.Server(r.Context()) })))
	mux.Handle("POST /v1/accounts", s.open(s.limited(call(maxEntryBody, a.SignUp))))
	mux.Handle("POST /v1/sessions", s.open(s.limited(s.proven(call(maxSmallBody, a.SignIn)))))
	mux.Handle("GET /v1/accounts/{handle}", s.either(get(func(r *http.Request) (api.Account, error) {
		return a.AccountByHandle(r.Context(), r.PathValue("handle"))
	})))
	mux.Handle("GET /v1/accounts/by-id/{id}", s.either(get(func(r *http.Request) (api.Account, error) {
		id, err := chat.ParseAccountID(r.PathValue("id"))
		if err != nil {
			return api.Account{}, err
		}
		return a.AccountByID(r.Context(), id)
	})))
	mux.Handle("POST /v1/chain", s.either(put(maxEntryBody, a.AppendEntry)))
	mux.Handle("PUT /v1/key-packages", s.authenticated(put(maxKeyPackagesBody, a.PutKeyPackages)))
	mux.Handle("GET /v1/key-packages", s.authenticated(get(func(r *http.Request) (api.KeyPackageCount, error) {
		return a.CountKeyPackages(r.Context())
	})))
	mux.Handle("POST /v1/key-packages/claim", s.authenticated(call(maxSmallBody, a.ClaimKeyPackages)))
	mux.Handle("GET /v1/friends", s.authenticated(get(func(r *http.Request) (api.FriendList, error) { return a.ListFriends(r.Context()) })))
	mux.Handle("PUT /v1/friends/{handle}", s.authenticated(get(func(r *http.Request) (api.Friend, error) {
		return a.AddFriend(r.Context(), r.PathValue("handle"))
	})))
	mux.Handle("DELETE /v1/friends/{handle}", s.authenticated(do(func(r *http.Request) error {
		return a.RemoveFriend(r.Context(), r.PathValue("handle"))
	})))
}

// proven hands the DPoP proof on to a call that checks it itself: only sign-in knows whose key to ask for.
func (s *server) proven(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		q, err := s.proofRequest(r)
		if err != nil {
			return err
		}
		return h(w, r.WithContext(dpop.WithRequest(r.Context(), q)))
	}
}

// either serves a call to a signed-in device and, a few times a minute, to a caller without a session: somebody who lost every device
// must be able to fetch the key chain and to add an entry signed with the recovery key. What the call needs is in its body.
func (s *server) either(h handler) http.Handler {
	device, anybody := s.authenticated(h), s.open(s.limited(h))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			device.ServeHTTP(w, r)
			return
		}
		anybody.ServeHTTP(w, r)
	})
}
