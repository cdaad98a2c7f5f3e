package api

import (
	"context"

	"letterlock/chat"
)

// Partner is one partner's public entry: the agreement in clear and where the ledger holds it.
type Partner struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Agreement []byte `json:"agreement"` // countersigned (package grant)
	Proof     []byte `json:"proof"`     // C2SP tlog-proof of the agreement's leaf
	Active    bool   `json:"active"`    // false when it has ended or was stopped
}

// PartnerList answers with every partner.
type PartnerList struct {
	Partners []Partner `json:"partners"`
}

// ConsentRequest is what a partner asks a person for.
type ConsentRequest struct {
	ID         string              `json:"id"` // of the request, from the authorization URL
	Partner    Partner             `json:"partner"`
	Actions    []string            `json:"actions"`
	Pick       bool                `json:"pick"`   // the person chooses the friend; a thread is made
	Thread     chat.ConversationID `json:"thread"` // or this thread
	Grant      chat.GrantID        `json:"grant"`  // the id the new grant must have
	Certs      []byte              `json:"certs"`  // agent key and grant key, certified (package grant)
	KeyPackage []byte              `json:"key_package,omitempty"`
	ValidUntil int64               `json:"valid_until"` // ms
	ExpiresAt  int64               `json:"expires_at"`  // ms: of the request
}

// PutGrant hands in a signed grant, narrowing or revocation: a control entry.
type PutGrant struct {
	Request string `json:"request,omitempty"` // the consent request it answers
	Signed  []byte `json:"signed"`
}

// Record is one record of the caller's history, as stored.
type Record struct {
	Record []byte `json:"record"`          // proof.Record
	Proof  []byte `json:"proof,omitempty"` // C2SP tlog-proof, once included
}

// RecordList is a part of a history in order.
type RecordList struct {
	Records []Record `json:"records"`
}

// RecordQuery selects records of the caller's account.
type RecordQuery struct {
	Partner string `json:"partner"`
	Chain   string `json:"chain"` // control or access
	From    uint64 `json:"from"`  // the first n
	Limit   int    `json:"limit"`
}

// EraseRecords asks that the contents of the caller's records with a partner be deleted: in each chain those before the number given.
type EraseRecords struct {
	Partner string `json:"partner"`
	Control uint64 `json:"control"`
	Access  uint64 `json:"access"`
}

// ErasedRecords says what was deleted. Records of a permission that still stands are kept.
type ErasedRecords struct {
	Erased   int            `json:"erased"`
	Kept     int            `json:"kept"`
	Standing []chat.GrantID `json:"standing"` // the permissions that the kept ones are about
}

// GrantStatus is one grant of the caller's account.
type GrantStatus struct {
	Grant  chat.GrantID `json:"grant"`
	Signed []byte       `json:"signed"`
	State  string       `json:"state"` // pending, live, ended, void
	Ended  string       `json:"ended,omitempty"`
}

// GrantList answers with every grant of the caller's account.
type GrantList struct {
	Grants []GrantStatus `json:"grants"`
}

// Redirect ends a consent: where the person's browser (or command line) goes next.
type Redirect struct {
	URL string `json:"url"`
}

// Permission is the part of the client API about partners, grants and history.
type Permission interface {
	ListPartners(ctx context.Context) (PartnerList, error)                  // GET  /v1/partners (open)
	GetConsent(ctx context.Context, request string) (ConsentRequest, error) // GET  /v1/consents/{request}
	PutGrant(ctx context.Context, r PutGrant) (Record, error)               // POST /v1/grants: durable with its record and outbox row
	FinishConsent(ctx context.Context, request string) (Redirect, error)    // POST /v1/consents/{request}/finish: after the commit; gives the code
	RefuseConsent(ctx context.Context, request string) (Redirect, error)    // POST /v1/consents/{request}/refuse
	ListGrants(ctx context.Context) (GrantList, error)                      // GET  /v1/grants
	Records(ctx context.Context, q RecordQuery) (RecordList, error)         // GET  /v1/records?partner=&chain=&from=&limit=
	// Completeness proves that the caller's chains have no further record.
	Completeness(ctx context.Context, r Completeness) (CompletenessProof, error) // POST /v1/completeness
	EraseRecords(ctx context.Context, r EraseRecords) (ErasedRecords, error)     // POST /v1/records/erase
	// Bundle is everything a stranger needs to check the caller's history with a partner offline, or the keys alone if none is named (proof.Bundle).
	Bundle(ctx context.Context, partner string) ([]byte, error) // GET  /v1/bundle?partner=
}

// MaxChainEnds is how many chains one call of Completeness asks for at most.
const MaxChainEnds = 256

// Completeness names the chains of the caller that are to be shown as complete.
type Completeness struct {
	Chains []ChainEnd `json:"chains"`
}

// ChainEnd is the record that a chain should not have.
type ChainEnd struct {
	Partner string `json:"partner"`
	Chain   string `json:"chain"` // control or access
	Next    uint64 `json:"next"`
}

// CompletenessProof says what the map holds for each chain that was asked for, in that order.
type CompletenessProof struct {
	Head   []byte     `json:"head"` // proof.Head
	Chains []MapProof `json:"chains"`
}

// PublicEntries are public entries of the log from a number on (spec/map.md section 1), at most 200.
type PublicEntries struct {
	Head    []byte        `json:"head"` // proof.Head; it says how many there are
	Entries []PublicEntry `json:"entries"`
}

// PublicEntry is an agreement, a report, a partner's end, a release or a policy.
type PublicEntry struct {
	Index int64  `json:"index"`
	Leaf  []byte `json:"leaf"`
	Proof []byte `json:"proof"` // labelmap.Proof
}

// Handoff is a witness policy with its place in the log (spec/witness.md section 3).
type Handoff struct {
	Leaf  []byte `json:"leaf"`
	Proof []byte `json:"proof"` // tlog-proof
}

// PublicLog is the ledger as everybody may read it.
type PublicLog interface {
	InclusionProof(ctx context.Context, leaf [32]byte, waitSeconds int) ([]byte, error) // GET  /log/proof/{leaf hash}?wait=
	Checkpoint(ctx context.Context) ([]byte, error)                                     // GET  /log/checkpoint
	ConsistencyProof(ctx context.Context, from, to int64) ([][32]byte, error)           // GET  /log/consistency?from=&to=
	PublicEntries(ctx context.Context, from uint64) (PublicEntries, error)              // GET  /log/public?from=
	Policies(ctx context.Context) ([]Handoff, error)                                    // GET  /log/policies
}

// Inbox is the partner's half: what an agent calls under one grant's token.
type Inbox interface {
	Grant(ctx context.Context) (InboxGrant, error)                              // GET  /inbox/v1/grant
	Slot(ctx context.Context) (InboxSlot, error)                                // GET  /inbox/v1/slot
	Post(ctx context.Context, r InboxPost) (Accepted, error)                    // POST /inbox/v1/posts
	TakeBack(ctx context.Context, r InboxTakeBack) (Accepted, error)            // POST /inbox/v1/take-backs
	Welcome(ctx context.Context) (MailboxWelcome, error)                        // GET  /inbox/v1/welcome
	Changes(ctx context.Context, since string, limit int) (InboxChanges, error) // GET  /inbox/v1/changes?sinceState=&limit=
	CloseAccess(ctx context.Context, receipt []byte) error                      // POST /inbox/v1/receipts (open: the receipt's signature says who it is from)
	Link(ctx context.Context, r InboxLink) (InboxLinked, error)                 // POST /inbox/v1/links
	PutFigures(ctx context.Context, r InboxFigures) error                       // POST /inbox/v1/figures
}

// InboxGrant says what the calling agent may do now.
type InboxGrant struct {
	Grant        chat.GrantID        `json:"grant"`
	Conversation chat.ConversationID `json:"conversation"`
	Actions      []string            `json:"actions"`
	Epoch        uint64              `json:"epoch"`
	State        string              `json:"state"`
	Signed       []byte              `json:"signed"`    // the grant
	Friend       string              `json:"friend"`    // opaque handle of the other person for this partner and person; empty where there is not exactly one
	Recipient    Recipient           `json:"recipient"` // what its posts and links are counted under
}

// Recipient is the kind of recipient that sends and clicks are counted under. Of one other person it says what the person lets a
// partner know.
type Recipient string

// The kinds of recipient.
const (
	RecipientUser    Recipient = "user"     // the other person uses the partner's app too
	RecipientNoUser  Recipient = "no-user"  // and does not
	RecipientNotTold Recipient = "not-told" // and does not say
	RecipientSeveral Recipient = "several"  // there is not exactly one other person
)

// InboxSlot is the newest announcement that the thread's members made.
type InboxSlot struct {
	Slot  []byte `json:"slot"`
	Epoch uint64 `json:"epoch"`
}

// InboxPost puts a letter through the slot.
type InboxPost struct {
	Post           []byte `json:"post"` // package slot
	IdempotencyKey string `json:"idempotency_key"`
}

// InboxTakeBack takes back a post of the same grant's person and partner.
type InboxTakeBack struct {
	TakeBack       []byte `json:"take_back"` // package slot
	IdempotencyKey string `json:"idempotency_key"`
}

// InboxLink asks for a share link. What the link is about stays in the fragment that the agent adds to it, inside the encrypted message.
type InboxLink struct {
	Base      string `json:"base"` // the partner's address, under one of the agreement's link bases; the link's id is added to it
	Interface string `json:"interface,omitempty"`
	Surface   string `json:"surface,omitempty"`
	Variant   string `json:"variant,omitempty"`
}

// InboxLinked is a new share link.
type InboxLinked struct {
	ID  string `json:"id"`  // 32 hex digits: what the partner's own server sees behind its base
	URL string `json:"url"` // to be sent; leads to base and id, and counts
}

// InboxFigures are a partner's own counts, to be set beside the server's in the report. A figure replaces the one before for its day and labels.
type InboxFigures struct {
	Figures []Figure `json:"figures"` // at most MaxFigures
}

// MaxFigures is how many figures one call takes.
const MaxFigures = 1000

// Figure is how often something was sent and clicked on one day.
type Figure struct {
	Day       string    `json:"day"` // UTC: 2006-01-02
	Interface string    `json:"interface"`
	Surface   string    `json:"surface"`
	Variant   string    `json:"variant"`
	Recipient Recipient `json:"recipient"`
	Sends     uint64    `json:"sends"`
	Clicks    uint64    `json:"clicks"`
}

// InboxChanges is what a reading agent has not seen. Promises and opens come with the first entries of an access period and again
// until the agent passes a state that it was given with them. Where closes come instead of entries, their receipts are due first
// (CloseAccess); then ask again with the same state.
type InboxChanges struct {
	Entries  []Entry  `json:"entries"`
	State    string   `json:"state"` // pass as since next time
	More     bool     `json:"more"`
	Promises [][]byte `json:"promises,omitempty"` // signed promises of open records (proof.Promise), one for each of Opens
	Opens    [][]byte `json:"opens,omitempty"`    // the open records that those promises speak of (proof.Disclosure)
	Closes   [][]byte `json:"closes,omitempty"`   // statements of ended periods (proof.Statement), for the agent's countersignature
}
