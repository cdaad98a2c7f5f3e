package device

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"sync"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/keychain"
	"letterlock/proof"
)

// Dial makes the connection to a server. Before sign-up account and device are those to be.
type Dial func(url string, account chat.AccountID, device chat.DeviceID, key ed25519.PrivateKey) (Server, error)

// Config is what a Client needs from outside.
type Config struct {
	State State
	Dial  Dial
	Now   func() time.Time // nil: the system's clock
	Rand  io.Reader        // nil: the system's generator

	Policy []byte // for SignUp and Recover: the witness policy to hold the ledger against; nil: as the server shows it then
	Invite string // for SignUp, where the server takes new people by invitation
}

// Client is one device of one account. Its methods may be called from several goroutines; one runs at a time.
type Client struct {
	mu       sync.Mutex
	state    State
	dial     Dial
	server   Server
	self     self
	key      keychain.DeviceKey
	now      func() time.Time
	rand     io.Reader
	invite   string
	pin      []byte                       // Config.Policy
	log      *proof.Log                   // what is remembered of the ledger
	policy   ledgerKeys                   // the server's keys, as pinned at sign-up
	compared map[chat.ConversationID]bool // whose own count was compared with the server's in this run
	merged   map[chat.ConversationID]bool // whose pending commit was merged by the last sync
	greeted  bool                         // the server showed its pinned keys in this run
	warning  error                        // why the daily check could not be made
}

// Open opens the device that was signed up in this state.
func Open(cfg Config) (*Client, error) {
	c := newClient(cfg)
	var known bool
	err := c.state.View(func(tx StateTx) (err error) {
		known, err = load(tx, bucketSelf, "self", &c.self)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !known {
		return nil, chat.Errorf(chat.NotFound, "nobody is signed up in this folder: run signup first")
	}
	return c, c.start()
}

func newClient(cfg Config) *Client {
	c := &Client{state: cfg.State, dial: cfg.Dial, now: cfg.Now, rand: cfg.Rand, invite: cfg.Invite, pin: cfg.Policy, compared: map[chat.ConversationID]bool{}, merged: map[chat.ConversationID]bool{}}
	if c.now == nil {
		c.now = time.Now
	}
	if c.rand == nil {
		c.rand = rand.Reader
	}
	return c
}

// start makes ready what follows from self: key, connection, ledger.
func (c *Client) start() (err error) {
	if c.key, err = keychain.DeviceKeyFromSeed(c.self.Seed); err != nil {
		return chat.Wrap(chat.Internal, err, "the device's key cannot be read")
	}
	if c.server, err = c.dial(c.self.ServerURL, c.self.Account, c.self.Device, c.key.Private()); err != nil {
		return err
	}
	if err := c.forgetOver(); err != nil {
		return err
	}
	return c.openLedger()
}

func (c *Client) ms() int64 { return c.now().UnixMilli() }

// Self is who the device is.
type Self struct {
	Account chat.AccountID `json:"account"`
	Handle  string         `json:"handle"`
	Device  chat.DeviceID  `json:"device"`
	Name    string         `json:"device_name"`
	Server  string         `json:"server"`
	Host    string         `json:"host"`
}

// Self tells who the device is.
func (c *Client) Self() Self {
	s := c.self
	return Self{s.Account, s.Handle, s.Device, s.Name, s.ServerURL, s.Host}
}

func (c *Client) accountURI() string { return chat.AccountURI(c.self.Host, c.self.Handle) }

func (c *Client) identity() []byte {
	return []byte(chat.DeviceURI(c.self.Host, c.self.Handle, c.self.Device))
}

// Evidence is what is kept of a lie: what was said, in a sentence, and the bytes that show it.
type Evidence struct {
	_            struct{}            `cbor:",toarray"`
	At           int64               `json:"at"`
	Conversation chat.ConversationID `json:"conversation"`
	Sentence     string              `json:"sentence"`
	Data         []byte              `json:"data"`
}

// keepEvidence writes down a lie. It must not fail silently: its error joins the alarm.
func (c *Client) keepEvidence(tx StateTx, conv chat.ConversationID, sentence string, data []byte) error {
	kept := false // once is enough
	err := tx.List(bucketEvidence, "", func(name string, _ []byte) (bool, error) {
		var e Evidence
		_, err := load(tx, bucketEvidence, name, &e)
		kept = kept || e.Conversation == conv && e.Sentence == sentence && bytes.Equal(e.Data, data)
		return !kept, err
	})
	if err != nil || kept {
		return err
	}
	at := c.ms()
	return save(tx, bucketEvidence, seqName(uint64(at))+"-"+conv.String()[:8], Evidence{At: at, Conversation: conv, Sentence: sentence, Data: data})
}

// ListEvidence returns what was kept, oldest first.
func (c *Client) ListEvidence() (all []Evidence, err error) {
	err = c.state.View(func(tx StateTx) error {
		return tx.List(bucketEvidence, "", func(name string, value []byte) (bool, error) {
			var e Evidence
			if _, err := load(tx, bucketEvidence, name, &e); err != nil {
				return false, err
			}
			all = append(all, e)
			return true, nil
		})
	})
	return all, err
}

// pinned is the server as it was when the device signed up.
func (c *Client) pinned() api.Server {
	return api.Server{Host: c.self.Host, PublicURL: c.self.ServerURL, ServerKey: c.self.ServerKey, LedgerVKey: c.self.LedgerVKey, VRFKey: c.self.VRFKey}
}

// CheckServer compares the server's keys with those pinned at sign-up.
func (c *Client) CheckServer(ctx context.Context) error {
	s, err := c.server.Server(ctx)
	if err != nil {
		return err
	}
	p := c.pinned()
	if s.Host != p.Host || !chat.EqualBytes(s.ServerKey, p.ServerKey) || s.LedgerVKey != p.LedgerVKey || !chat.EqualBytes(s.VRFKey, p.VRFKey) {
		return chat.Errorf(chat.Tampered, "the server shows other keys than when this device signed up")
	}
	return nil
}

// greet is CheckServer, once a run.
func (c *Client) greet(ctx context.Context) error {
	if c.greeted {
		return nil
	}
	err := c.CheckServer(ctx)
	if chat.Is(err, chat.Tampered) {
		return c.alarm(chat.ConversationID{}, err, nil)
	}
	c.greeted = err == nil
	return err
}
