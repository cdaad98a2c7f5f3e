package oauth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/luikyv/go-oidc/pkg/goidc"

	"letterlock/chat"
	"letterlock/store"
)

const (
	maxJWKS         = 16 << 10 // bytes
	maxKeys         = 8
	maxRedirects    = 8
	maxRedirectSize = 512 // bytes
)

// CheckClient says whether a partner can be registered with these keys and addresses. The operator's command calls it before the row
// is written. Keys rotate by registering the old and the new one together for a while.
func CheckClient(jwks []byte, redirectURIs []string) error {
	if _, err := parseKeys(jwks); err != nil {
		return err
	}
	if len(redirectURIs) == 0 || len(redirectURIs) > maxRedirects {
		return chat.Errorf(chat.Invalid, "a client has 1 to %d redirect URIs", maxRedirects)
	}
	for _, u := range redirectURIs {
		if err := checkRedirect(u); err != nil {
			return err
		}
	}
	return nil
}

// parseKeys reads a client's public keys: Ed25519 or P-256, each with a kid of its own if there are several.
func parseKeys(jwks []byte) (goidc.JSONWebKeySet, error) {
	var set goidc.JSONWebKeySet
	if len(jwks) > maxJWKS {
		return set, chat.Errorf(chat.TooLarge, "a JWKS has at most %d bytes", maxJWKS)
	}
	if err := json.Unmarshal(jwks, &set); err != nil {
		return set, chat.Wrap(chat.Invalid, err, "this is no JWKS")
	}
	if len(set.Keys) == 0 || len(set.Keys) > maxKeys {
		return set, chat.Errorf(chat.Invalid, "a client has 1 to %d keys", maxKeys)
	}
	seen := map[string]bool{}
	for i := range set.Keys {
		if err := checkKey(&set.Keys[i]); err != nil {
			return set, err
		}
		if id := set.Keys[i].KeyID; len(set.Keys) > 1 && (id == "" || seen[id]) {
			return set, chat.Errorf(chat.Invalid, "with several keys each needs a kid of its own")
		}
		seen[set.Keys[i].KeyID] = true
	}
	return set, nil
}

// checkKey fixes a key's algorithm: the one of its type, and no other.
func checkKey(k *goidc.JSONWebKey) error {
	if !k.IsPublic() || !k.Valid() {
		return chat.Errorf(chat.Invalid, "client keys must be valid public keys")
	}
	var alg jose.SignatureAlgorithm
	switch pub := k.Key.(type) {
	case ed25519.PublicKey:
		alg = jose.EdDSA
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P256() {
			alg = jose.ES256
		}
	}
	if alg == "" || k.Algorithm != "" && k.Algorithm != string(alg) {
		return chat.Errorf(chat.Invalid, "client keys must be Ed25519 with EdDSA or P-256 with ES256")
	}
	k.Algorithm = string(alg)
	return nil
}

// checkRedirect accepts https addresses, and http on the loopback addresses for agents on the partner's own machine.
func checkRedirect(uri string) error {
	u, err := url.Parse(uri)
	if err != nil || len(uri) > maxRedirectSize || u.Host == "" || u.User != nil || u.Fragment != "" || u.String() != uri {
		return chat.Errorf(chat.Invalid, "a redirect URI is an address without fragment of at most %d bytes", maxRedirectSize)
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && loopback(u)) {
		return chat.Errorf(chat.Invalid, "a redirect URI must use https, or http on 127.0.0.1 or [::1]")
	}
	return nil
}

func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return ip != nil && ip.IsLoopback()
}

// redirectAllowed compares byte for byte (RFC 9700 section 2.1), but for the port on a loopback address (RFC 8252 section 7.3).
func redirectAllowed(registered []string, uri string) bool {
	return slices.Contains(registered, uri) || slices.Contains(withoutPorts(registered), withoutPort(uri)) && checkRedirect(uri) == nil
}

// withoutPort drops the port of a loopback address and leaves every other one as it is.
func withoutPort(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" || !loopback(u) {
		return uri
	}
	u.Host = u.Hostname()
	if net.ParseIP(u.Host).To4() == nil {
		u.Host = "[" + u.Host + "]"
	}
	return u.String()
}

func withoutPorts(uris []string) []string {
	out := make([]string, len(uris))
	for i, u := range uris {
		out[i] = withoutPort(u)
	}
	return out
}

// clients is the registry as go-oidc sees it: read only.
type clients struct{ *Service }

var _ goidc.DCRManager = clients{}

var errReadOnly = errors.New("oauth: clients are registered by the operator")

// Client reads a registered partner.
func (c clients) Client(ctx context.Context, id string) (*goidc.Client, error) {
	if chat.CheckPartner(id) != nil {
		return nil, goidc.ErrNotFound
	}
	var row store.OAuthClient
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.OAuthClient(id)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, goidc.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(row.JWKS)
	if err != nil {
		return nil, err
	}
	return &goidc.Client{ID: row.ID, ClientMeta: goidc.ClientMeta{
		ApplicationType:          goidc.ApplicationTypeNative, // loopback redirects with any port
		RedirectURIs:             slices.Concat(row.RedirectURIs, withoutPorts(row.RedirectURIs)),
		GrantTypes:               []goidc.GrantType{goidc.GrantAuthorizationCode, goidc.GrantRefreshToken},
		ResponseTypes:            []goidc.ResponseType{goidc.ResponseTypeCode},
		JWKS:                     &keys,
		TokenAuthnMethod:         goidc.AuthnMethodPrivateKeyJWT,
		DPoPTokenBindingRequired: true,
		PARRequired:              true,
		AuthDetailTypes:          []goidc.AuthDetailType{DetailType},
	}}, nil
}

// SaveClient refuses.
func (clients) SaveClient(context.Context, *goidc.Client) error { return errReadOnly }

// DeleteClient refuses.
func (clients) DeleteClient(context.Context, string) error { return errReadOnly }
