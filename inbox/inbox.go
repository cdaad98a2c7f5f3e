// Package inbox is permission on the server: it takes grants, narrowings and revocations from people's devices, judges the commits
// that carry them into a thread, and answers what partners' agents may call under them (the Inbox API). It also does what the
// operator decides about partners.
//
// A grant's row is the only truth about permission. Each call of an agent is decided by grant.May over what was read in the very
// transaction that acts; each deed is written together with its record in the ledger and its outbox row.
//
//	inbox.go     the service, its neighbours
//	partner.go   the operator: registration, agreements, stop
//	consent.go   what a partner asks for, and how a consent ends
//	control.go   grants, narrowings and revocations handed in
//	commit.go    what commits change: delivery's hooks
//	call.go      the decision under each call of an agent
//	post.go      posts and take-backs
//	read.go      what a reading agent gets
//	access.go    access periods: open before, close after
//	end.go       how permissions end; the sweeper
//	history.go   what a person may look up
//
// Neighbours: grant decides and slot holds the formats; delivery orders the log; ledger proves; oauth knows tokens and consent
// requests; account knows key chains; report counts; store keeps. Nothing here can open a post or a message: the package holds no
// key but the server's own, with which agreements are countersigned.
package inbox

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/delivery"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/report"
	"letterlock/store"
)

// People knows accounts' key chains: account.Service.
type People interface {
	// Chain reads a verified key chain in the transaction that acts on it; NotFound where there is no such account.
	Chain(tx *store.Tx, a chat.AccountID) (*keychain.Chain, error)
}

// OAuth is what this package needs of the authorization server: oauth.Service.
type OAuth interface {
	// Consent reads an open request. Of the partner it knows the id alone.
	Consent(ctx context.Context, request string) (api.ConsentRequest, error)
	// Approve issues the code for exactly this grant and says where the person's browser goes. It may narrow, never widen.
	Approve(ctx context.Context, request string, g chat.GrantID, actions chat.Actions) (redirect string, err error)
	// Refuse ends the request.
	Refuse(ctx context.Context, request string) (redirect string, err error)
	// EndTokens ends every token of a grant, within the transaction that ends the grant.
	EndTokens(tx *store.Tx, g chat.GrantID) error
}

// Config is what a Service works with.
type Config struct {
	Host     string // authority of the MIMI URIs
	Store    *store.Store
	People   People
	Delivery *delivery.Service
	Ledger   *ledger.Ledger
	Keys     *ledger.Keys
	OAuth    OAuth
	Reports  *report.Service
	Now      func() time.Time
	Rand     io.Reader // of friends' handles
	Logger   *slog.Logger
}

// Service implements api.Permission, api.Inbox and api.Admin. It is safe for concurrent use.
type Service struct {
	Config
	trust  grant.Trust
	opened openedAgreements
	wake   chan struct{} // of capacity 1: something ended and its leaf may have to go
}

var (
	_ api.Permission = (*Service)(nil)
	_ api.Inbox      = (*Service)(nil)
	_ api.Admin      = (*Service)(nil)
)

// New makes the service. The caller gives its Hooks to delivery and its AccountHooks to account, and runs Run.
func New(c Config) (*Service, error) {
	trust, err := proof.Trust(c.Host, c.Keys.ServerKey(), c.Keys.LedgerVKey(), c.Keys.VRFKey())
	if err != nil {
		return nil, err
	}
	s := &Service{Config: c, trust: trust, wake: make(chan struct{}, 1)}
	s.opened.byHash = map[[32]byte]*grant.Agreement{}
	return s, nil
}

// Hooks are what delivery asks about permission.
func (s *Service) Hooks() delivery.Hooks {
	return delivery.Hooks{JudgeFound: s.judgeFound, JudgeCommit: s.judgeCommit, Committed: s.committed, After: s.after}
}

func (s *Service) ms() int64 { return s.Now().UnixMilli() }

// update runs fn in one write transaction and gives errors a kind.
func (s *Service) update(ctx context.Context, fn func(*store.Tx) error) error {
	return failed(s.Store.Update(ctx, fn))
}

// view runs fn on one snapshot and gives errors a kind.
func (s *Service) view(ctx context.Context, fn func(*store.Tx) error) error {
	return failed(s.Store.View(ctx, fn))
}

// failed turns an error of the store into one with a kind: a refusal stays, anything else is ours.
func failed(err error) error {
	var e *chat.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return chat.Wrap(chat.Internal, err, "the server could not read or write its store")
}
