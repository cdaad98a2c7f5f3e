package agent

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/slot"
	"letterlock/vault"
)

// The vault's buckets (spec/agent.md, section 3). Names hold ids only.
const (
	bucketAgent    = "agent"    // "config": config; "ledger": the last checkpoint
	bucketAsked    = "asked"    // authorization id: asked
	bucketGrants   = "grants"   // grant id: held
	bucketTokens   = "tokens"   // grant id: tokens
	bucketGroups   = "groups"   // grant id: the reading leaf's group (mls snapshot)
	bucketLetters  = "letters"  // grant id/key of a letter: letter
	bucketLines    = "lines"    // grant id/number: line
	bucketAccess   = "access"   // grant id/period: access
	bucketPromises = "promises" // grant id/leaf hash: pending
	bucketEvidence = "evidence" // time/random: evidence
)

const stateVersion = 1

// config is who this agent is and which server it pinned.
type config struct {
	_           struct{} `cbor:",toarray"`
	Version     uint64
	Partner     string
	Name        string
	RedirectURI string
	LinkBases   []string
	AgentSeed   []byte
	ClientSeed  []byte
	AgentCert   []byte // signed by the root key
	Server      pinned
}

// pinned is what was learned of the server when the agent was made. It never changes afterwards.
type pinned struct {
	_          struct{} `cbor:",toarray"`
	Host       string
	URL        string
	ServerKey  []byte
	LedgerVKey string
	VRFKey     []byte
}

func pin(s api.Server) pinned {
	return pinned{Host: s.Host, URL: s.PublicURL, ServerKey: s.ServerKey, LedgerVKey: s.LedgerVKey, VRFKey: s.VRFKey}
}

// Outcome is what came of an authorization.
type Outcome string

// The outcomes.
const (
	Waiting Outcome = "waiting" // the person has not decided
	Granted Outcome = "granted"
	Refused Outcome = "refused" // by the person
	Failed  Outcome = "failed"  // Detail says why; ask again
)

// asked is one authorization request.
type asked struct {
	_        struct{} `cbor:",toarray"`
	Version  uint64
	Grant    chat.GrantID
	Outcome  Outcome
	Detail   string
	Redirect string // where the person comes back
	State    string // OAuth state; empty once used
	Verifier string // PKCE; empty once used
	Expires  int64  // ms: of the request
}

// Phase is how a grant stands with its agent.
type Phase string

// The phases.
const (
	Asked   Phase = "asked"   // keys made, the person has not decided
	Live    Phase = "live"    // it may be used
	Stopped Phase = "stopped" // reading was stopped, evidence is kept; sending goes on
	Ended   Phase = "ended"   // over; everything but this line was erased
)

// held is a grant and what is kept under it.
type held struct {
	_            struct{} `cbor:",toarray"`
	Version      uint64
	Grant        chat.GrantID
	Phase        Phase
	Detail       string // why it was stopped or ended
	For          string // the partner's own name of the person
	Seed         []byte // of the grant key
	Certs        []byte
	KeyPackage   []byte // with its private keys; empty once used
	AskedFor     chat.Actions
	Signed       []byte // the grant; from here on empty until it was given
	Conversation chat.ConversationID
	Handle       string
	Actions      chat.Actions
	Expiry       int64  // ms
	Friend       string // opaque handle of the other person
	SlotEpoch    uint64
	SlotKey      slot.PublicKey
	Counter      uint64 // of the last post sealed
	Since        string // state of the server's changes
	Last         uint64 // seq of the last entry of the thread's log that was read
	Lines        uint64 // number of the last line
}

// tokens are a grant's OAuth tokens.
type tokens struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	Access  string
	Expires int64 // ms
	Refresh string
}

// letter is a post on its way, or sent.
type letter struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	Request [32]byte // SHA-256 of what the partner's backend asked for
	Message chat.MessageID
	Content []byte // MIMI content; empty once sent
	Labels  slot.Labels
	Key     string // idempotency key towards the server
	Post    []byte // sealed; empty once sent
	Seq     uint64 // in the thread's log; 0 until it was accepted
	At      int64  // ms
}

// line is one message that was read, in the order of the thread's log.
type line struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	Seq     uint64
	At      int64
	Message chat.MessageID
	Sender  string // URI
	Handle  string // whose message it is
	Account chat.AccountID
	Content []byte // empty: taken back, or an instruction that did nothing
}

// access counts what was served in one access period.
type access struct {
	_        struct{} `cbor:",toarray"`
	Version  uint64
	Period   int64
	Epoch    uint64 // of the last entry
	From, To uint64
	Count    uint64
}

// pending is a promise whose record is not yet proven.
type pending struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	Promise []byte
	Open    []byte // disclosure of the record
	By      int64
	Period  int64
	From    uint64
	Proven  bool
}

// evidence is what convicts somebody of something, and when it was found.
type evidence struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	At      int64
	Grant   chat.GrantID // zero: of no one grant
	Detail  string
	Pieces  [][]byte
}

// What holds secrets prints as a placeholder, whatever the verb.
func (config) Format(f fmt.State, _ rune) { io.WriteString(f, "(agent's config)") }
func (asked) Format(f fmt.State, _ rune)  { io.WriteString(f, "(authorization request)") }
func (held) Format(f fmt.State, _ rune)   { io.WriteString(f, "(grant)") }
func (tokens) Format(f fmt.State, _ rune) { io.WriteString(f, "(tokens)") }
func (letter) Format(f fmt.State, _ rune) { io.WriteString(f, "(letter)") }
func (line) Format(f fmt.State, _ rune)   { io.WriteString(f, "(line)") }

// load reads a value; ok is false where there is none.
func load[T any](tx *vault.Tx, bucket, name string) (v T, ok bool, err error) {
	data, ok, err := tx.Get(bucket, name)
	if err != nil || !ok {
		return v, false, err
	}
	defer clear(data)
	if err := canon.Unmarshal(data, &v); err != nil {
		return v, false, chat.Wrap(chat.Internal, err, "agent: the state in %s cannot be read", bucket)
	}
	return v, true, nil
}

// save writes a value.
func save(tx *vault.Tx, bucket, name string, v any) error {
	data, err := canon.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Put(bucket, name, data)
}

// under names a value that belongs to a grant.
func under(g chat.GrantID, rest string) string { return g.String() + "/" + rest }

// number writes a number so that names sort as numbers do.
func number(n uint64) string { return fmt.Sprintf("%016x", n) }

func leafName(h [32]byte) string { return hex.EncodeToString(h[:]) }

// scanBatch is how many names are listed at once.
const scanBatch = 256

// scan visits the names of a bucket that belong to a grant, in order, beginning after the one given.
func scan(tx *vault.Tx, bucket string, g chat.GrantID, after string, visit func(name string) error) error {
	prefix := g.String() + "/"
	last := prefix + after
	for {
		names, err := tx.List(bucket, last, scanBatch)
		if err != nil {
			return err
		}
		for _, name := range names {
			if !strings.HasPrefix(name, prefix) {
				return nil
			}
			if err := visit(name); err != nil {
				return err
			}
			last = name
		}
		if len(names) < scanBatch {
			return nil
		}
	}
}
