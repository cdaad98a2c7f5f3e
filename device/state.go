package device

import (
	"encoding/hex"
	"fmt"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
)

// State keeps what the device must remember: encrypted at rest, one transaction at a time, durable when Update returns.
type State interface {
	Update(func(StateTx) error) error
	View(func(StateTx) error) error
}

// StateTx is a transaction. Names and buckets hold ids only, never handles or content. Get of what is not there gives nil.
type StateTx interface {
	Get(bucket, name string) ([]byte, error)
	Put(bucket, name string, value []byte) error
	Delete(bucket, name string) error
	// List calls fn in the order of names, from the first after after; fn returns false to stop.
	List(bucket, after string, fn func(name string, value []byte) (bool, error)) error
}

// Server is all that a device asks of a server.
type Server interface {
	api.Accounts
	api.Conversations
	api.Permission
	api.PublicLog
}

// Buckets. Those that end in a slash have one bucket for each conversation.
const (
	bucketSelf         = "self"
	bucketPerson       = "person"       // account id -> person
	bucketHandle       = "handle"       // hash of handle -> account id
	bucketConversation = "conversation" // conversation id -> conversation
	bucketGroup        = "group"        // conversation id -> mls snapshot
	bucketPending      = "pending"      // conversation id -> pendingCommit
	bucketKeyPackage   = "keypackage"   // ref -> mls.KeyPackage
	bucketLedger       = "ledger"       // what is remembered of the log
	bucketGrant        = "grant"        // grant id -> grantMemory
	bucketPartner      = "partner"      // id -> name
	bucketEvidence     = "evidence"     // time -> evidence
	bucketUnlogged     = "unlogged"     // leaf hash -> unlogged
	bucketHeard        = "heard"        // conversation id and sender -> heard
	bucketItems        = "items/"       // seq -> Item
	bucketMessageIndex = "messages/"    // message id -> seq
	bucketOutbox       = "outbox/"      // order -> outgoing
	bucketOverdue      = "overdue"      // time and place -> overdue
	bucketLifetime     = "lifetime"     // conversation id -> lifetime
)

// self is who this device is.
type self struct {
	_          struct{} `cbor:",toarray"`
	Version    uint64
	Account    chat.AccountID
	Handle     string
	Device     chat.DeviceID
	Name       string
	Seed       []byte // of the device key
	ServerURL  string
	Host       string
	ServerKey  []byte
	LedgerVKey string
	VRFKey     []byte
	Instance   uint64 // counts the runs; a restored copy shows by going back
}

// person is what is remembered of an account: its key chain, and whether its safety number was compared.
type person struct {
	_        struct{} `cbor:",toarray"`
	Chain    [][]byte
	Verified bool
}

// conversation is what is remembered of a conversation beside its group.
type conversation struct {
	_        struct{} `cbor:",toarray"`
	ID       chat.ConversationID
	Kind     uint8
	Partner  string
	With     string // the friend it was founded with; empty if somebody else founded it
	Cursor   uint64 // the last entry that was taken
	Read     uint64 // the last entry that the person has seen
	Broken   string // why nothing more is taken or sent; empty while all is well
	Founded  bool   // the server has it
	Left     bool   // removed; what was seen stays
	Created  int64
	Counters []counter // of posts, by grant
	Warned   []string  // keys that are in no key chain: nothing is sent while there are any
}

// counter is the highest post counter taken of a grant.
type counter struct {
	_     struct{} `cbor:",toarray"`
	Grant chat.GrantID
	N     uint64
}

// pendingCommit is a commit on its way. It lives until the log shows who won the epoch.
type pendingCommit struct {
	_       struct{} `cbor:",toarray"`
	Pending []byte   // mls.Pending
	Commit  []byte
	Welcome []byte
	Slot    []byte
	Control [][]byte // revocations and narrowings
	Dedup   []byte
}

// outgoing is a message on its way. Once sealed, the same bytes are sent until the epoch is over.
type outgoing struct {
	_       struct{} `cbor:",toarray"`
	Dedup   []byte   // once its time is over: the SHA-256 of what was sealed
	Content []byte   // empty: its time is over
	ID      chat.MessageID
	Queued  int64
	Readers []chat.GrantID // who could read the thread when the person pressed send
	Epoch   uint64         // in which Sealed was made
	Sealed  []byte
	Held    bool // somebody new can read the thread: the person must send again
}

// load reads a value into v and reports whether it was there.
func load(tx StateTx, bucket, name string, v any) (bool, error) {
	data, err := tx.Get(bucket, name)
	if err != nil || data == nil {
		return false, err
	}
	if err := canon.Unmarshal(data, v); err != nil {
		return false, chat.Wrap(chat.Internal, err, "the device's own state cannot be read (%s)", bucket)
	}
	return true, nil
}

func save(tx StateTx, bucket, name string, v any) error {
	data, err := canon.Marshal(v)
	if err != nil {
		return chat.Wrap(chat.Internal, err, "the device's own state cannot be written (%s)", bucket)
	}
	return tx.Put(bucket, name, data)
}

// seqName is a sequence number as a name whose order is the number's.
func seqName(n uint64) string { return fmt.Sprintf("%016x", n) }

func parseSeqName(s string) (n uint64, err error) {
	_, err = fmt.Sscanf(s, "%016x", &n)
	return n, err
}

func hexName(b []byte) string { return hex.EncodeToString(b) }

// handleName hides a handle in a name.
func handleName(handle string) string {
	h := canon.Hash("letterlock/state-handle/v1", []byte(handle))
	return hexName(h[:16])
}
