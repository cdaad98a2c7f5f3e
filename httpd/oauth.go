package httpd

import "net/http"

// routesOAuth mounts the authorization server. It keeps the error form of its own standard (RFC 6749 section 5.2) instead of
// problems, because every OAuth client library reads that one.
func (s *server) routesOAuth(mux *http.ServeMux) {
	if s.OAuth == nil {
		return
	}
	mux.Handle("/oauth/", s.OAuth)
	mux.Handle("GET /.well-known/oauth-authorization-server", s.OAuth)     // RFC 8414
	mux.Handle("GET /.well-known/oauth-protected-resource/inbox", s.OAuth) // RFC 9728 section 3.1
}
