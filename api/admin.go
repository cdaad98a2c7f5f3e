package api

import (
	"context"
	"encoding/json"

	"letterlock/chat"
)

// Registration is the file that `letterlock agent init` writes for the operator.
type Registration struct {
	Partner      string          `json:"partner"`
	Name         string          `json:"name"`
	Offer        []byte          `json:"offer,omitempty"` // an agreement with the partner's signature (package grant)
	AgentCert    []byte          `json:"agent_cert"`      // the agent key, certified by the root key
	RedirectURIs []string        `json:"redirect_uris"`
	ClientJWKS   json.RawMessage `json:"client_jwks"` // public keys of the OAuth client (RFC 7517 section 5)
}

// AcceptAgreement asks the operator's server to register a partner's client and, where the file holds an offer, to countersign it.
type AcceptAgreement struct {
	Registration Registration `json:"registration"`
	// DomainKey is the root key that the partner's own domain serves; empty: it was not checked.
	DomainKey []byte `json:"domain_key,omitempty"`
}

// AgreementInForce is what an agreement says, for the operator to read.
type AgreementInForce struct {
	Partner        string   `json:"partner"`
	Name           string   `json:"name"`
	Number         uint64   `json:"number"`
	Actions        []string `json:"actions"`
	ReportDays     uint64   `json:"report_days"`
	PostsPerMinute uint64   `json:"posts_per_minute"`
	LinkBases      []string `json:"link_bases"`
	Interfaces     []string `json:"interfaces"`
	Surfaces       []string `json:"surfaces"`
	Variants       []string `json:"variants"`
	NotBefore      int64    `json:"not_before"` // ms
	NotAfter       int64    `json:"not_after"`  // ms
	RootKey        []byte   `json:"root_key"`
	Agreement      []byte   `json:"agreement"` // countersigned
	Leaf           []byte   `json:"leaf"`      // leaf hash in the ledger
	Stopped        bool     `json:"stopped"`
	Active         bool     `json:"active"`
	LiveGrants     int      `json:"live_grants"`
}

// AgreementList answers with every partner's agreement.
type AgreementList struct {
	Agreements []AgreementInForce `json:"agreements"`
}

// StopPartner is the operator's one switch.
type StopPartner struct {
	Reason string `json:"reason"` // public, in the ledger; at most 256 bytes
}

// ReportQuery asks for a report on fourteen days.
type ReportQuery struct {
	Partner   string `json:"partner"`
	From      string `json:"from,omitempty"`      // first day, UTC: 2006-01-02; empty: the report period that today is in
	Threshold uint64 `json:"threshold,omitempty"` // smallest count that is shown; 0: the default
}

// BuiltReport is a report and where the ledger holds its hash.
type BuiltReport struct {
	Report []byte `json:"report"` // JSON (spec/report.md)
	Hash   []byte `json:"hash"`   // SHA-256 of Report
	Leaf   []byte `json:"leaf"`   // leaf hash in the ledger
}

// BlockAccount shuts a person out.
type BlockAccount struct {
	Reason string `json:"reason"` // the person reads it; one line of at most 256 bytes
}

// AccountStanding is what the operator sees of an account. What it says and to whom is not among it.
type AccountStanding struct {
	Account chat.AccountID `json:"account"`
	Handle  string         `json:"handle"`
	Created int64          `json:"created"` // ms
	Devices int            `json:"devices"`
	Blocked int64          `json:"blocked,omitempty"` // ms: since when; 0: it is not
	Reason  string         `json:"reason,omitempty"`
}

// AccountStandings answers with several.
type AccountStandings struct {
	Accounts []AccountStanding `json:"accounts"`
}

// NewInvite asks for an invitation.
type NewInvite struct {
	Uses      int64 `json:"uses"`       // how many people it lets in
	ExpiresIn int64 `json:"expires_in"` // seconds
}

// Invite is an invitation.
type Invite struct {
	ID      string `json:"id"`             // names it to the operator; lets nobody in
	Code    string `json:"code,omitempty"` // in the answer that made it, and never again
	Created int64  `json:"created"`        // ms
	Expires int64  `json:"expires"`        // ms
	Uses    int64  `json:"uses"`
	Used    int64  `json:"used"`
}

// InviteList answers with every invitation that is kept.
type InviteList struct {
	Invites []Invite `json:"invites"`
}

// AccountAdmin is what the operator does about people, on the server's own machine.
type AccountAdmin interface {
	BlockAccount(ctx context.Context, handle string, r BlockAccount) error   // POST /admin/v1/accounts/{id}/block
	UnblockAccount(ctx context.Context, handle string) error                 // POST /admin/v1/accounts/{id}/unblock
	ShowAccount(ctx context.Context, handle string) (AccountStanding, error) // GET  /admin/v1/accounts/{id}
	ListBlocked(ctx context.Context) (AccountStandings, error)               // GET  /admin/v1/blocked
	CreateInvite(ctx context.Context, r NewInvite) (Invite, error)           // POST /admin/v1/invites
	ListInvites(ctx context.Context) (InviteList, error)                     // GET  /admin/v1/invites
	RevokeInvite(ctx context.Context, id string) error                       // POST /admin/v1/invites/{id}/revoke
}

// NewRelease is a file that the project gave out.
type NewRelease struct {
	Name    string `json:"name"`    // of the file: letterlock-linux-amd64
	Version string `json:"version"` // v1.2.0
	SHA256  []byte `json:"sha256"`
}

// Release is a release on record.
type Release struct {
	Leaf  []byte `json:"leaf"`  // proof.Release
	Index int64  `json:"index"` // in the ledger; -1: it waits for it
}

// ReleaseList answers with every release on record.
type ReleaseList struct {
	Releases []Release `json:"releases"`
}

// ReleaseAdmin is what the operator puts on record about the program itself.
type ReleaseAdmin interface {
	AddRelease(ctx context.Context, r NewRelease) (Release, error) // POST /admin/v1/releases
	ListReleases(ctx context.Context) (ReleaseList, error)         // GET  /admin/v1/releases
}

// Status says how the server's durable work stands.
type Status struct {
	Host       string `json:"host"`
	Partners   int    `json:"partners"`
	LedgerSize int64  `json:"ledger_size"` // leaves in the log
	LedgerVKey string `json:"ledger_vkey"` // note verifier of the log
	Outbox     int64  `json:"outbox"`      // leaves that wait for it
	Unsigned   int64  `json:"unsigned"`    // leaves in it that wait for a quorum of witnesses
}

// Admin is what the operator does, on the server's own machine.
type Admin interface {
	Status(ctx context.Context) (Status, error)                                  // GET /admin/v1/status
	ListAgreements(ctx context.Context) (AgreementList, error)                   // GET  /admin/v1/partners
	GetAgreement(ctx context.Context, partner string) (AgreementInForce, error)  // GET  /admin/v1/partners/{id}
	PutPartner(ctx context.Context, r AcceptAgreement) (AgreementInForce, error) // POST /admin/v1/partners
	StopPartner(ctx context.Context, partner string, r StopPartner) error        // POST /admin/v1/partners/{id}/stop
	ResumePartner(ctx context.Context, partner string) error                     // POST /admin/v1/partners/{id}/resume
	BuildReport(ctx context.Context, r ReportQuery) (BuiltReport, error)         // POST /admin/v1/reports
	PutPartnerFigures(ctx context.Context, partner string, r InboxFigures) error // POST /admin/v1/partners/{id}/figures
}
