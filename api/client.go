package api

import (
	"context"

	"letterlock/chat"
)

// Server says who a server is: what a client pins when it first signs up.
type Server struct {
	Version    string `json:"version"`
	Host       string `json:"host"`        // the authority of its MIMI URIs
	PublicURL  string `json:"public_url"`  // where it is reached
	ServerKey  []byte `json:"server_key"`  // Ed25519: external sender of every conversation, promises
	LedgerVKey string `json:"ledger_vkey"` // C2SP signed-note verifier of its checkpoints
	VRFKey     []byte `json:"vrf_key"`     // ristretto255 VRF public key of its labels
}

// SignUp takes a handle. The account id stands inside the first key-chain entry.
type SignUp struct {
	Entry  []byte `json:"entry"`            // key-chain entry 0
	Invite string `json:"invite,omitempty"` // a code that the operator made, where registration is by invitation
}

// SignedUp answers SignUp.
type SignedUp struct {
	Account chat.AccountID `json:"account"`
	Handle  string         `json:"handle"`
}

// SignIn asks for a session. The request carries a DPoP proof under the device's key.
type SignIn struct {
	Account chat.AccountID `json:"account"`
	Device  chat.DeviceID  `json:"device"`
}

// Session is a token bound to the device's key (DPoP).
type Session struct {
	Token     string `json:"token"`
	ExpiresIn int64  `json:"expires_in"` // seconds
}

// Account is what others may see of a person: the signed list of devices.
type Account struct {
	Account chat.AccountID `json:"account"`
	Handle  string         `json:"handle"`
	Chain   [][]byte       `json:"chain"` // every entry from 0
	Keys    KeyProof       `json:"keys"`
}

// KeyProof shows that a key chain is the newest (spec/map.md section 5): up to Version, which is smaller than the chain's own while entries
// wait for the ledger.
type KeyProof struct {
	Head    []byte   `json:"head"` // proof.Head: the newest published checkpoint with its map root
	Version uint64   `json:"version"`
	Index   int64    `json:"index"`  // in the ledger, of the entry of that version; -1: the chain is not in the ledger yet, and Newest is empty
	Newest  MapProof `json:"newest"` // the map has that entry
	Next    MapProof `json:"next"`   // and none after it; where Index is -1 no entry 0
}

// MapProof is what the map holds under a label, with the proof of the label.
type MapProof struct {
	VRFProof []byte `json:"vrf_proof"`
	Proof    []byte `json:"proof"` // labelmap.Proof
}

// AppendEntry adds an entry to one's own key chain.
type AppendEntry struct {
	Entry []byte `json:"entry"`
}

// KeyPackages are put by a device for others to claim: one use each, but for the last resort.
type KeyPackages struct {
	Packages   [][]byte `json:"packages"`
	LastResort []byte   `json:"last_resort,omitempty"`
}

// KeyPackageCount answers how many are left.
type KeyPackageCount struct {
	Left       int  `json:"left"`
	LastResort bool `json:"last_resort"`
}

// ClaimKeyPackages asks for one KeyPackage of each device of an account.
type ClaimKeyPackages struct {
	Account chat.AccountID `json:"account"`
}

// ClaimedKeyPackage is one device's.
type ClaimedKeyPackage struct {
	Device     chat.DeviceID `json:"device"`
	KeyPackage []byte        `json:"key_package"`
}

// ClaimedKeyPackages answers ClaimKeyPackages.
type ClaimedKeyPackages struct {
	Packages []ClaimedKeyPackage `json:"packages"`
}

// FriendState is how two people stand to each other.
type FriendState string

// The states of a friendship, as the caller sees it.
const (
	Requested FriendState = "requested" // the caller asked
	Incoming  FriendState = "incoming"  // the other asked
	Friends   FriendState = "friends"
)

// Friend is one row of the caller's list.
type Friend struct {
	Account chat.AccountID `json:"account"`
	Handle  string         `json:"handle"`
	State   FriendState    `json:"state"`
	Since   int64          `json:"since"` // ms
}

// FriendList answers with every friend and request.
type FriendList struct {
	Friends []Friend `json:"friends"`
}

// Accounts is the part of the client API about people and their devices.
type Accounts interface {
	Server(ctx context.Context) (Server, error)                                           // GET  /.well-known/letterlock
	SignUp(ctx context.Context, r SignUp) (SignedUp, error)                               // POST /v1/accounts (open)
	SignIn(ctx context.Context, r SignIn) (Session, error)                                // POST /v1/sessions (DPoP proof)
	AccountByHandle(ctx context.Context, handle string) (Account, error)                  // GET  /v1/accounts/{handle}
	AccountByID(ctx context.Context, id chat.AccountID) (Account, error)                  // GET  /v1/accounts/by-id/{id}
	AppendEntry(ctx context.Context, r AppendEntry) error                                 // POST /v1/chain
	PutKeyPackages(ctx context.Context, r KeyPackages) error                              // PUT  /v1/key-packages
	CountKeyPackages(ctx context.Context) (KeyPackageCount, error)                        // GET  /v1/key-packages
	ClaimKeyPackages(ctx context.Context, r ClaimKeyPackages) (ClaimedKeyPackages, error) // POST /v1/key-packages/claim (friends, or people of a common conversation)
	ListFriends(ctx context.Context) (FriendList, error)                                  // GET  /v1/friends
	AddFriend(ctx context.Context, handle string) (Friend, error)                         // PUT  /v1/friends/{handle}: asks, or accepts where the other asked
	RemoveFriend(ctx context.Context, handle string) error                                // DELETE /v1/friends/{handle}: declines, takes back or ends
}

// EntryKind is what an entry of a conversation's log holds.
type EntryKind uint8

// The kinds of log entry.
const (
	KindCommit   EntryKind = 1 // MLS PublicMessage, a commit; Extra: the slot announcement, if the thread is shared
	KindProposal EntryKind = 2 // MLS PublicMessage, a proposal
	KindMessage  EntryKind = 3 // MLS PrivateMessage, application data
	KindPost     EntryKind = 4 // a post that an agent put through the slot
	KindTakeBack EntryKind = 5 // an agent's signed delete of its own post
)

// Entry is one entry of a conversation's log.
type Entry struct {
	Conversation chat.ConversationID `json:"conversation"`
	Seq          uint64              `json:"seq"`
	Kind         EntryKind           `json:"kind"`
	Epoch        uint64              `json:"epoch"` // the epoch it was made in
	At           int64               `json:"at"`    // ms, the server's clock
	Body         []byte              `json:"body"`
	Extra        []byte              `json:"extra,omitempty"`
	Tombstone    bool                `json:"tombstone,omitempty"` // Body is the SHA-256 of what was deleted
	Expired      bool                `json:"expired,omitempty"`   // of a tombstone: its sender's time was over, says the server
}

// NewConversation founds a conversation: epoch 0 with its founder's device alone.
type NewConversation struct {
	GroupInfo []byte `json:"group_info"` // MLSMessage(GroupInfo) with the ratchet tree; its group id is the conversation id
}

// Conversation is what its members see of it from the server.
type Conversation struct {
	ID      chat.ConversationID `json:"id"`
	Kind    uint8               `json:"kind"` // grant.Private or grant.Shared
	Partner string              `json:"partner,omitempty"`
	Epoch   uint64              `json:"epoch"`
	LastSeq uint64              `json:"last_seq"`
	Blocked bool                `json:"blocked,omitempty"` // waits for a commit that carries out a proposed removal
	Created int64               `json:"created"`
}

// ConversationList answers with every conversation of the caller's account.
type ConversationList struct {
	Conversations []Conversation `json:"conversations"`
}

// Commit ends an epoch. It is taken whole or not at all; exactly one is taken for each epoch.
type Commit struct {
	Commit      []byte   `json:"commit"`                // MLS PublicMessage
	Welcome     []byte   `json:"welcome,omitempty"`     // where it adds leaves
	Slot        []byte   `json:"slot,omitempty"`        // the new epoch's slot announcement; must be there in a shared thread
	Revocations [][]byte `json:"revocations,omitempty"` // signed revocations that this commit carries out: one bundle
	DedupKey    []byte   `json:"dedup_key"`             // 16 random bytes; the same commit sent again is answered as before
}

// Accepted says where an entry stands in its conversation's log: it is durable.
type Accepted struct {
	Seq   uint64 `json:"seq"`
	Epoch uint64 `json:"epoch"` // after a commit: the new one
	At    int64  `json:"at"`
}

// Message is an application message of the current epoch.
type Message struct {
	Message  []byte `json:"message"` // MLS PrivateMessage
	DedupKey []byte `json:"dedup_key"`
	Expires  int64  `json:"expires,omitempty"` // ms since 1970, at most MaxExpires: when the ciphertext is to be gone; 0: never
}

// Page is a part of a log, in order.
type Page struct {
	Entries []Entry `json:"entries"`
	LastSeq uint64  `json:"last_seq"` // of the whole log, for progress
}

// MailboxWelcome is a Welcome that waits for the calling device.
type MailboxWelcome struct {
	ID           chat.MessageID      `json:"id"` // SHA-256 of the Welcome
	Conversation chat.ConversationID `json:"conversation"`
	Seq          uint64              `json:"seq"` // of the commit that made it: read the log after this
	Welcome      []byte              `json:"welcome"`
}

// Mailbox answers with the Welcomes that wait.
type Mailbox struct {
	Welcomes []MailboxWelcome `json:"welcomes"`
}

// Conversations is the part of the client API about conversations. Refusals carry a kind: StaleEpoch where the epoch is not the
// current one (fetch what is new, make it again), Blocked where a proposed removal must be committed first.
type Conversations interface {
	Found(ctx context.Context, r NewConversation) (Conversation, error)                                     // POST /v1/conversations
	ListConversations(ctx context.Context) (ConversationList, error)                                        // GET  /v1/conversations
	GetConversation(ctx context.Context, c chat.ConversationID) (Conversation, error)                       // GET  /v1/conversations/{id}
	Commit(ctx context.Context, c chat.ConversationID, r Commit) (Accepted, error)                          // POST /v1/conversations/{id}/commits
	SendMessage(ctx context.Context, c chat.ConversationID, r Message) (Accepted, error)                    // POST /v1/conversations/{id}/messages
	Log(ctx context.Context, c chat.ConversationID, after uint64, limit int, waitSeconds int) (Page, error) // GET  /v1/conversations/{id}/log?after=&limit=&wait=
	DeleteMessage(ctx context.Context, c chat.ConversationID, seq uint64) error                             // DELETE /v1/conversations/{id}/log/{seq}: the account that sent it
	Welcomes(ctx context.Context, waitSeconds int) (Mailbox, error)                                         // GET  /v1/welcomes?wait=
	DeleteWelcome(ctx context.Context, id chat.MessageID) error                                             // DELETE /v1/welcomes/{id}
	OwnCount(ctx context.Context, c chat.ConversationID) (OwnCount, error)                                  // GET  /v1/conversations/{id}/own-count
}

// OwnCount says how many application messages of the calling device the server took in the current epoch: what a restored device
// compares its ratchet with.
type OwnCount struct {
	Epoch uint64 `json:"epoch"`
	Count uint64 `json:"count"`
}
