package api

import (
	"context"
	"encoding/json"
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

// Status says how the server's durable work stands.
type Status struct {
	Host       string `json:"host"`
	Partners   int    `json:"partners"`
	LedgerSize int64  `json:"ledger_size"` // leaves in the published log
	Outbox     int64  `json:"outbox"`      // leaves that wait for it
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
