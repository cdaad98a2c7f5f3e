// Package delivery is the server's half of conversations: it founds them, puts what members send into one order for each, keeps
// the public roster, and hands the log to those who may have it, live or later.
//
// The way of a message: SendMessage or Stream.Send looks at its envelope; an appender writes whatever is queued in one transaction
// with one sync (append.go); only then is it acknowledged and handed to the streams that listen (conversation.go, stream.go).
//
// The rules stand in rules.go: exactly one commit for each epoch, application messages of the current epoch only, nothing but a
// commit while a proposed removal waits, a dedup key answers once. What a commit may do to agents and grants is decided by the
// Hooks, which package inbox supplies; whether it is valid MLS, by mls/roster.
//
// Neighbours: store keeps everything; httpd calls; inbox appends posts and take-backs through Append. Nothing here can read a
// message: the package knows no keys but the server's own, with which it may propose to remove a leaf, of an agent or of a device
// that is gone from its key chain, and no other.
package delivery

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"sync"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls/roster"
	"letterlock/store"
)

// Limits of conversations.
const (
	MaxConversations = 10_000 // of one account, unless Limits say otherwise
	MaxMembers       = 1_000  // leaves of one group
)

// People looks up who stands behind a leaf. Both calls read in the transaction that acts on the answer.
type People interface {
	// Device finds a device that stands in its account's key chain now, and its key; NotFound where there is none.
	Device(tx *store.Tx, handle string, d chat.DeviceID) (chat.AccountID, ed25519.PublicKey, error)
	// Account finds whose handle it is, whatever became of the devices.
	Account(tx *store.Tx, handle string) (chat.AccountID, error)
	// Chain is a person's whole key chain: what proves to members that a device is gone from it.
	Chain(tx *store.Tx, handle string) ([][]byte, error)
}

// Hooks judge and record what touches permission. Each may be nil, which means: no objection, nothing to do.
type Hooks struct {
	// JudgeFound judges a new conversation's GroupContext.
	JudgeFound func(g *roster.Group, caller api.Caller) error
	// JudgeCommit judges a commit inside the transaction that would take it. It must not write.
	JudgeCommit func(tx *store.Tx, c chat.ConversationID, change *roster.Change, r api.Commit, caller api.Caller) error
	// Committed records what the commit at seq changed, in the same transaction.
	Committed func(tx *store.Tx, c chat.ConversationID, change *roster.Change, r api.Commit, seq uint64) error
	// After runs when the commit is durable. It must not block: the appender waits for it.
	After func(c chat.ConversationID, change *roster.Change)
}

// Config is what a Service is built from.
type Config struct {
	Store     *store.Store
	People    People
	Host      string             // authority of the MIMI URIs
	ServerKey ed25519.PrivateKey // the external sender of every conversation
	Hooks     Hooks
	Now       func() time.Time
	Logger    *slog.Logger
	Appenders int // goroutines that write, each for a shard of the conversations; 0: one, which is right for SQLite

	// ObserveBatch is told of each transaction of the hot path; nil: nobody is.
	ObserveBatch func(entries int, took time.Duration)

	Limits Limits // of each account
}

// Service implements api.Conversations and what package inbox and the live connection need.
type Service struct {
	Config
	cache     cache
	hub       hub
	clock     clock
	meters    meters
	shut      sync.Map // chat.AccountID: blocked while this process runs
	appenders []*appender
	draining  chan struct{} // closed by Drain: nobody waits for news any more
	drainOnce sync.Once
	running   sync.WaitGroup // appenders, and answers to repeated sends
}

var _ api.Conversations = (*Service)(nil)

// New starts the appenders. Close ends them.
func New(c Config) *Service {
	s := &Service{Config: c, draining: make(chan struct{})}
	s.cache.init(s)
	s.hub.init()
	for range max(1, c.Appenders) {
		a := newAppender(s)
		s.appenders = append(s.appenders, a)
		s.running.Go(a.run)
	}
	return s
}

// SetHooks supplies the hooks where they come from a package that needs the Service first. It must be called before the first call.
func (s *Service) SetHooks(h Hooks) { s.Hooks = h }

// Drain sends away who waits for news: streams end, long polls return. Sends are still taken.
func (s *Service) Drain() {
	s.drainOnce.Do(func() { close(s.draining) })
	s.hub.closeAll(chat.Errorf(chat.Unavailable, "the server is shutting down"))
}

// Close drains, takes nothing more, and writes and answers what was queued.
func (s *Service) Close() {
	s.Drain()
	for _, a := range s.appenders {
		a.close()
	}
	s.running.Wait()
}

// appender finds the one appender that writes a conversation.
func (s *Service) appender(id chat.ConversationID) *appender {
	return s.appenders[(int(id[0])<<8|int(id[1]))%len(s.appenders)]
}

// Stats are figures for operators: no ids, no content.
type Stats struct {
	Cached  int // conversations in memory
	Queued  int // entries that wait to be written
	Streams int // live connections
}

// Stats reads the figures.
func (s *Service) Stats() Stats {
	n := Stats{Cached: s.cache.len(), Streams: s.hub.count()}
	for _, a := range s.appenders {
		n.Queued += a.queued()
	}
	return n
}

// errNoConversation is the one answer for what does not exist and for what the caller may not know of.
var errNoConversation = chat.Errorf(chat.NotFound, "there is no such conversation, or you are not in it")

// failed turns an error of the store into one with a kind: a refusal stays, anything else is ours.
func failed(err error) error {
	var e *chat.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return chat.Wrap(chat.Internal, err, "the server could not read or write its store")
}

// unwritten is what a sender hears of a batch that failed: of the disk, or that it failed.
func unwritten(err error) error {
	if store.DiskError(err) != nil {
		return err
	}
	return chat.Wrap(chat.Unavailable, err, "the server could not write: send it again with the same key")
}

// view reads the store and gives errors a kind.
func (s *Service) view(ctx context.Context, fn func(*store.Tx) error) error {
	return failed(s.Store.View(ctx, fn))
}
