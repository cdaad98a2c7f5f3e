package oauth

import (
	"encoding/json"
	"net/http"

	"letterlock/chat"
)

// The endpoints, under the issuer.
const (
	pushPath       = "/oauth/par"
	authorizePath  = "/oauth/authorize"
	tokenPath      = "/oauth/token"
	introspectPath = "/oauth/introspect"
	revokePath     = "/oauth/revoke"
	metadataPath   = "/.well-known/oauth-authorization-server"          // RFC 8414
	resourcePath   = "/.well-known/oauth-protected-resource" + "/inbox" // RFC 9728 section 3.1
)

// maxForm is the largest request body, in bytes: a KeyPackage of the largest size in base64, escaped, with room.
const maxForm = 64 << 10

// Handler serves the endpoints and the metadata. What go-oidc would serve beside them is not reachable.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+pushPath, form(http.HandlerFunc(s.push)))
	mux.HandleFunc("GET "+authorizePath, s.authorize)
	mux.Handle("POST "+tokenPath, form(http.HandlerFunc(s.token)))
	mux.Handle("POST "+introspectPath, form(s.protocol))
	mux.Handle("POST "+revokePath, form(s.protocol))
	mux.HandleFunc("GET "+metadataPath, s.metadata)
	mux.HandleFunc("GET "+resourcePath, s.resourceMetadata)
	return mux
}

// form refuses large bodies, parameters in the address, and parameters that come twice (RFC 6749 section 3.2).
func form(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" {
			refuse(w, http.StatusBadRequest, "invalid_request", chat.Errorf(chat.Invalid, "parameters belong into the body"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			refuse(w, http.StatusBadRequest, "invalid_request", chat.Wrap(chat.Invalid, err, "the body must be a form of at most %d bytes", maxForm))
			return
		}
		for name, values := range r.PostForm {
			if len(values) != 1 {
				refuse(w, http.StatusBadRequest, "invalid_request", chat.Errorf(chat.Invalid, "parameter %.40q comes twice", name))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// refuse answers in the form of RFC 6749 section 5.2. An error without a kind is not told.
func refuse(w http.ResponseWriter, status int, code string, err error) {
	detail := "something went wrong here"
	if e, ok := err.(*chat.Error); ok {
		detail = e.Detail
	} else {
		status, code = http.StatusInternalServerError, "server_error"
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": detail})
}
