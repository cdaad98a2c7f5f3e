package oauth

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/store"
)

const (
	maxState        = 512 // bytes
	challengeLength = 43  // of S256 in base64url (RFC 7636 section 4.2)
)

// pushed is a pushed authorization request (RFC 9126), as stored (spec/oauth.md).
type pushed struct {
	_           struct{} `cbor:",toarray"`
	Version     uint64
	RedirectURI string
	State       string
	Challenge   string // PKCE, S256
	Thumbprint  string // of the key that the code will be bound to; empty: any
	Created     int64  // s
	Detail      detail
}

const pushedVersion = 1

// push takes a request. A proof is not needed here (RFC 9449 section 10.1), but one that came along must hold, and binds the code.
func (s *Service) push(w http.ResponseWriter, r *http.Request) {
	if len(r.Header.Values("DPoP")) > 0 {
		if _, err := s.proof(r, pushPath); err != nil {
			refuse(w, http.StatusBadRequest, "invalid_dpop_proof", err)
			return
		}
	}
	s.protocol.ServeHTTP(w, r)
}

// judgePush checks what go-oidc leaves open, once the client is known and before anything is stored.
func (s *Service) judgePush(ctx context.Context, as *goidc.AuthnSession, c *goidc.Client) error {
	d, err := s.checkPush(as, c)
	if err != nil {
		return err
	}
	request := d.consent("", c.ID, s.Now().Add(RequestLifetime).UnixMilli())
	err = s.Store.View(ctx, func(tx *store.Tx) error {
		if _, err := tx.OAuthAuthorization(d.Grant); !errors.Is(err, store.ErrNotFound) {
			return errors.Join(err, chat.Errorf(chat.Exists, "grant_id was used before: draw a new one for each request"))
		}
		return s.Judge(tx, request)
	})
	return protocolError(goidc.ErrorCodeInvalidAuthDetails, err)
}

func (s *Service) checkPush(as *goidc.AuthnSession, c *goidc.Client) (d detail, err error) {
	bad := func(code goidc.ErrorCode, why string) (detail, error) { return d, goidc.NewError(code, why) }
	switch {
	case !redirectAllowed(c.RedirectURIs, as.RedirectURI):
		return bad(goidc.ErrorCodeInvalidRequest, "redirect_uri is not one of the registered ones")
	case as.ResponseMode != "" && as.ResponseMode != goidc.ResponseModeQuery:
		return bad(goidc.ErrorCodeInvalidRequest, "response_mode must be query")
	case as.CodeChallengeMethod != goidc.CodeChallengeMethodSHA256 || len(as.CodeChallenge) != challengeLength:
		return bad(goidc.ErrorCodeInvalidRequest, "PKCE with S256 is needed")
	case len(as.State) > maxState:
		return bad(goidc.ErrorCodeInvalidRequest, "state is too long")
	case !slices.Equal(as.Resources, goidc.Resources{s.resource()}):
		return bad(goidc.ErrorCodeInvalidTarget, "resource must be "+s.resource())
	case len(as.AuthDetails) != maxDetails:
		return bad(goidc.ErrorCodeInvalidAuthDetails, "authorization_details must hold exactly one request")
	}
	if d, err = parseDetail(as.AuthDetails[0]); err == nil {
		err = d.stillValid(s.Now())
	}
	return d, protocolError(goidc.ErrorCodeInvalidAuthDetails, err)
}

// protocolError gives an error of ours the form that clients of the standard read. Errors without a kind stay our fault.
func protocolError(code goidc.ErrorCode, err error) error {
	var e *chat.Error
	if err == nil || !errors.As(err, &e) || e.Kind == chat.Internal {
		return err
	}
	return goidc.WrapError(code, e.Detail, err)
}

// consent is the request as the person's client sees it.
func (d detail) consent(id, client string, expires int64) api.ConsentRequest {
	return api.ConsentRequest{
		ID: id, Partner: api.Partner{ID: client}, Actions: d.actions().Names(), Pick: d.Pick, Thread: d.Thread, Grant: d.Grant,
		Certs: d.Certs, KeyPackage: d.KeyPackage, ValidUntil: d.ValidUntil, ExpiresAt: expires,
	}
}

// requests keeps pushed requests for go-oidc, and finds codes.
type requests struct{ *Service }

var (
	_ goidc.AuthManager = requests{}
	_ goidc.PARManager  = requests{}
)

// SaveSession stores a new request, or the fact that it was answered: once.
func (s requests) SaveSession(ctx context.Context, as *goidc.AuthnSession) error {
	hash := requestHash(as.PushedAuthReqID)
	if as.Status != goidc.StatusPending {
		d := store.OAuthRefused
		if as.Status == goidc.StatusSuccess {
			d = store.OAuthAllowed
		}
		err := s.Store.Update(ctx, func(tx *store.Tx) error { return tx.DecideOAuthRequest(hash, d) })
		if errors.Is(err, store.ErrNotFound) {
			return goidc.NewError(goidc.ErrorCodeInvalidRequest, "the request was answered before")
		}
		return err
	}
	d, err := parseDetail(as.AuthDetails[0])
	if err != nil {
		return err
	}
	row := store.OAuthRequest{Hash: hash, Client: as.ClientID, Expires: int64(as.ExpiresAt) * 1000, Body: canon.MustMarshal(pushed{
		Version: pushedVersion, RedirectURI: as.RedirectURI, State: as.State, Challenge: as.CodeChallenge,
		Thumbprint: as.JWKThumbprint, Created: int64(as.CreatedAt), Detail: d,
	})}
	return s.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutOAuthRequest(row) })
}

// SessionByPushedAuthReqID finds a request.
func (s requests) SessionByPushedAuthReqID(ctx context.Context, id string) (*goidc.AuthnSession, error) {
	row, p, err := s.request(ctx, id)
	if chat.Is(err, chat.NotFound) {
		return nil, goidc.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	status := goidc.StatusPending
	if row.Decided != store.OAuthUndecided {
		status = goidc.StatusSuccess
	}
	return &goidc.AuthnSession{
		ID: id, PushedAuthReqID: id, Status: status, ClientID: row.Client, JWKThumbprint: p.Thumbprint,
		CreatedAt: int(p.Created), ExpiresAt: int(row.Expires / 1000),
		AuthorizationParameters: goidc.AuthorizationParameters{
			RedirectURI: p.RedirectURI, State: p.State, ResponseType: goidc.ResponseTypeCode,
			CodeChallenge: p.Challenge, CodeChallengeMethod: goidc.CodeChallengeMethodSHA256, Resources: goidc.Resources{s.resource()},
		},
	}, nil
}

// Session finds nothing: a request is answered in one step, there is no page to come back to.
func (s requests) Session(context.Context, string) (*goidc.AuthnSession, error) {
	return nil, goidc.ErrNotFound
}

// request reads a pushed request; chat.NotFound if there is none.
func (s *Service) request(ctx context.Context, id string) (row store.OAuthRequest, p pushed, err error) {
	err = s.Store.View(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.OAuthRequest(requestHash(id))
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return row, p, chat.Errorf(chat.NotFound, "there is no such request, or it is too old: go back to the app and ask again")
	}
	if err != nil {
		return row, p, err
	}
	return row, p, canon.Unmarshal(row.Body, &p)
}

func requestHash(id string) [32]byte { return sha256.Sum256([]byte(id)) }

// proof checks the DPoP proof of a request to one of our own endpoints. Replay is consume's: go-oidc calls it once the client is known.
func (s *Service) proof(r *http.Request, path string) (dpop.Thumbprint, error) {
	proofs := r.Header.Values("DPoP")
	if len(proofs) != 1 {
		return dpop.Thumbprint{}, chat.Errorf(chat.Unauthenticated, "this request needs one DPoP header")
	}
	return s.Verifier.Check(dpop.Request{Proof: proofs[0], Method: r.Method, URL: s.Issuer + path})
}

// seconds is a time in go-oidc's unit.
func seconds(t time.Time) int64 { return t.Unix() }
