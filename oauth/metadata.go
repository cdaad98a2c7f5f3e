package oauth

import (
	"encoding/json"
	"net/http"
)

// metadata answers RFC 8414. Only what this server does is in it; go-oidc's own OpenID document would promise more.
func (s *Service) metadata(w http.ResponseWriter, _ *http.Request) {
	algs := []string{string(algorithms[0]), string(algorithms[1])}
	auth := []string{"private_key_jwt"}
	answer(w, map[string]any{
		"issuer":                                                   s.Issuer,
		"authorization_endpoint":                                   s.Issuer + authorizePath,
		"token_endpoint":                                           s.Issuer + tokenPath,
		"pushed_authorization_request_endpoint":                    s.Issuer + pushPath,
		"introspection_endpoint":                                   s.Issuer + introspectPath,
		"revocation_endpoint":                                      s.Issuer + revokePath,
		"response_types_supported":                                 []string{"code"},
		"response_modes_supported":                                 []string{"query"},
		"grant_types_supported":                                    []string{"authorization_code", "refresh_token"},
		"code_challenge_methods_supported":                         []string{"S256"},
		"require_pushed_authorization_requests":                    true,
		"authorization_details_types_supported":                    []string{DetailType},
		"authorization_response_iss_parameter_supported":           true,
		"dpop_signing_alg_values_supported":                        algs,
		"token_endpoint_auth_methods_supported":                    auth,
		"token_endpoint_auth_signing_alg_values_supported":         algs,
		"introspection_endpoint_auth_methods_supported":            auth,
		"introspection_endpoint_auth_signing_alg_values_supported": algs,
		"revocation_endpoint_auth_methods_supported":               auth,
		"revocation_endpoint_auth_signing_alg_values_supported":    algs,
		"protected_resources":                                      []string{s.resource()},
	})
}

// resourceMetadata answers RFC 9728 for the Inbox API.
func (s *Service) resourceMetadata(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{
		"resource":                              s.resource(),
		"authorization_servers":                 []string{s.Issuer},
		"bearer_methods_supported":              []string{"header"},
		"authorization_details_types_supported": []string{DetailType},
		"dpop_signing_alg_values_supported":     []string{string(algorithms[0]), string(algorithms[1])},
		"dpop_bound_access_tokens_required":     true,
	})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}
