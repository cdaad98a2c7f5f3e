package account

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/store"
)

const (
	// SessionLifetime is how long a token is good. Clients sign in again by themselves.
	SessionLifetime = time.Hour
	maxSessions     = 8 // of one device at a time
	secretSize      = 32
)

// token is a session token in clear: the account's id, which finds the row, and a secret. On the wire: unpadded base64url.
type token struct {
	account chat.AccountID
	secret  [secretSize]byte
}

func (t token) String() string {
	return base64.RawURLEncoding.EncodeToString(append(t.account[:], t.secret[:]...))
}

func (t token) hash() [32]byte { return sha256.Sum256([]byte(t.String())) }

func parseToken(s string) (t token, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(t.account)+len(t.secret) {
		return t, noSession()
	}
	copy(t.account[:], b)
	copy(t.secret[:], b[len(t.account):])
	return t, nil
}

func noSession() error {
	return chat.Errorf(chat.Unauthenticated, "this session is unknown or over: sign in again")
}

// SignIn opens a session for a device of the key chain. The request in the context carries a proof under the device's key.
func (s *Service) SignIn(ctx context.Context, r api.SignIn) (api.Session, error) {
	q, err := dpop.RequestFrom(ctx)
	if err != nil {
		return api.Session{}, err
	}
	key, err := s.deviceKey(ctx, r)
	if err != nil {
		return api.Session{}, err
	}
	if err := s.Verifier.Verify(q, key); err != nil {
		return api.Session{}, err
	}
	t, err := s.newToken(r.Account)
	if err != nil {
		return api.Session{}, err
	}
	row := store.Session{
		Account: r.Account, TokenHash: t.hash(), Device: r.Device, Thumbprint: key,
		Expires: s.Now().Add(SessionLifetime).UnixMilli(),
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		if _, err := s.deviceKeyIn(tx, r); err != nil { // it may have been removed since
			return err
		}
		if err := notBlocked(tx, r.Account); err != nil {
			return err
		}
		if err := tx.TrimSessions(r.Account, r.Device, maxSessions-1); err != nil {
			return err
		}
		return tx.PutSession(row)
	})
	if err != nil {
		return api.Session{}, err
	}
	return api.Session{Token: t.String(), ExpiresIn: int64(SessionLifetime.Seconds())}, nil
}

func (s *Service) deviceKey(ctx context.Context, r api.SignIn) (key dpop.Thumbprint, err error) {
	return key, s.Store.View(ctx, func(tx *store.Tx) error {
		key, err = s.deviceKeyIn(tx, r)
		return err
	})
}

func (s *Service) deviceKeyIn(tx *store.Tx, r api.SignIn) (key dpop.Thumbprint, err error) {
	refused := chat.Errorf(chat.Unauthenticated, "this device is not in the account's key chain, or not any more")
	chain, err := s.Chain(tx, r.Account)
	if chat.Is(err, chat.NotFound) {
		return key, refused
	}
	if err != nil {
		return key, err
	}
	d, ok := chain.Device(r.Device)
	if !ok {
		return key, refused
	}
	return dpop.Ed25519Thumbprint(d.Key), nil
}

func (s *Service) newToken(id chat.AccountID) (token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := token{account: id}
	_, err := io.ReadFull(s.Rand, t.secret[:])
	return t, err
}

// Authenticate finds the device that holds a token, and checks that the request was made with the device's key.
func (s *Service) Authenticate(ctx context.Context, r dpop.Request) (api.Caller, error) {
	t, err := parseToken(r.Token)
	if err != nil {
		return api.Caller{}, err
	}
	h, err := s.holder(ctx, t)
	if err != nil {
		return api.Caller{}, err
	}
	if err := s.Verifier.Verify(r, h.Key); err != nil {
		return api.Caller{}, err
	}
	return h.Caller, nil
}

// holder finds a session in memory or in the store.
func (s *Service) holder(ctx context.Context, t token) (dpop.Holder[api.Caller], error) {
	hash, now := t.hash(), s.Now()
	h, generation, ok := s.sessions.Find(hash, now)
	if ok {
		return h, nil
	}
	var row store.Session
	var handle string
	err := s.Store.View(ctx, func(tx *store.Tx) (err error) {
		row, handle, err = tx.Session(t.account, hash)
		return err
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && row.Expires <= now.UnixMilli() {
		return h, noSession()
	}
	if err != nil {
		return h, err
	}
	h = dpop.Holder[api.Caller]{
		Caller: api.Caller{Account: row.Account, Handle: handle, Device: row.Device},
		Key:    row.Thumbprint,
		Until:  min(row.Expires, now.Add(cachedFor).UnixMilli()),
	}
	s.sessions.Remember(hash, h, generation)
	return h, nil
}

// cachedFor bounds how long another server process may take to notice that a session ended; this one notices at once.
const cachedFor = 20 * time.Second
