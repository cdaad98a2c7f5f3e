package device

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/keychain"
	"letterlock/mls/roster"
)

// Person is what the device knows of an account.
type Person struct {
	Account  chat.AccountID  `json:"account"`
	Handle   string          `json:"handle"`
	State    api.FriendState `json:"state"`
	Verified bool            `json:"verified"` // the safety number was compared
	Devices  int             `json:"devices"`
}

// AddFriend asks a person, or accepts where they asked.
func (c *Client) AddFriend(ctx context.Context, handle string) (api.Friend, error) {
	if err := chat.CheckHandle(handle); err != nil {
		return api.Friend{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.chainOf(ctx, handle); err != nil {
		return api.Friend{}, err
	}
	return c.server.AddFriend(ctx, handle)
}

// RemoveFriend declines, takes back or ends a friendship.
func (c *Client) RemoveFriend(ctx context.Context, handle string) error {
	return c.server.RemoveFriend(ctx, handle)
}

// Friends lists friends and requests.
func (c *Client) Friends(ctx context.Context) ([]Person, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, err := c.server.ListFriends(ctx)
	if err != nil {
		return nil, err
	}
	people := []Person{}
	for _, f := range list.Friends {
		p := Person{Account: f.Account, Handle: f.Handle, State: f.State}
		if known, chain, err := c.knownChain(f.Account); err == nil && chain != nil {
			p.Verified, p.Devices = known.Verified, len(chain.Devices())
		}
		people = append(people, p)
	}
	return people, nil
}

// SafetyNumber is 60 digits that are the same on both sides if nobody swapped a key.
func (c *Client) SafetyNumber(ctx context.Context, handle string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	own, err := c.ownChain()
	if err != nil {
		return "", err
	}
	other, err := c.chainOf(ctx, handle)
	if err != nil {
		return "", err
	}
	return keychain.SafetyNumber(own, other), nil
}

// MarkVerified remembers that the safety number was compared.
func (c *Client) MarkVerified(ctx context.Context, handle string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	chain, err := c.chainOf(ctx, handle)
	if err != nil {
		return err
	}
	return c.state.Update(func(tx StateTx) error {
		return save(tx, bucketPerson, chain.Account().String(), person{Chain: chain.Entries(), Verified: true})
	})
}

func (c *Client) knownChain(id chat.AccountID) (person, *keychain.Chain, error) {
	var p person
	var known bool
	err := c.state.View(func(tx StateTx) (err error) {
		known, err = load(tx, bucketPerson, id.String(), &p)
		return err
	})
	if err != nil || !known {
		return p, nil, err
	}
	chain, err := keychain.Open(p.Chain)
	if err != nil {
		return p, nil, chat.Wrap(chat.Internal, err, "a remembered key chain cannot be read")
	}
	return p, chain, nil
}

func (c *Client) ownChain() (*keychain.Chain, error) {
	_, chain, err := c.knownChain(c.self.Account)
	if err == nil && chain == nil {
		err = chat.Errorf(chat.Internal, "the device has lost its own key chain")
	}
	return chain, err
}

// chainOf is the newest key chain of a handle, taken from the server and held against what is remembered.
func (c *Client) chainOf(ctx context.Context, handle string) (*keychain.Chain, error) {
	acc, err := c.server.AccountByHandle(ctx, handle)
	if err != nil {
		return nil, err
	}
	if acc.Handle != handle {
		return nil, chat.Errorf(chat.Tampered, "the server answered with another person's keys")
	}
	return c.takeChain(ctx, acc)
}

// refreshChain is the newest key chain of an account that is known by its id.
func (c *Client) refreshChain(ctx context.Context, id chat.AccountID) (*keychain.Chain, error) {
	acc, err := c.accountByID(ctx, id)
	if err != nil {
		return nil, err
	}
	return c.takeChain(ctx, acc)
}

func (c *Client) accountByID(ctx context.Context, id chat.AccountID) (api.Account, error) {
	acc, err := c.server.AccountByID(ctx, id)
	if err == nil && acc.Account != id {
		err = chat.Errorf(chat.Tampered, "the server answered with another person's keys")
	}
	return acc, err
}

// takeChain checks a key chain, as far as the ledger's map has it, and remembers it. A chain that does not continue the remembered one is
// a lie: the server cannot take a device back or put one in, since every entry is signed by a device before it.
func (c *Client) takeChain(ctx context.Context, acc api.Account) (*keychain.Chain, error) {
	chain, err := keychain.Open(acc.Chain)
	if err != nil {
		return nil, chat.Wrap(chat.Tampered, err, "the server's key chain of %s does not hold", acc.Handle)
	}
	if chain.Account() != acc.Account || chain.Handle() != acc.Handle || chain.Host() != c.self.Host {
		return nil, chat.Errorf(chat.Tampered, "the server's key chain of %s is another person's", acc.Handle)
	}
	p, known, err := c.knownChain(acc.Account)
	if err != nil {
		return nil, err
	}
	if known != nil {
		if err := chain.Extends(known); err != nil {
			return nil, c.alarm(chat.ConversationID{}, chat.Wrap(chat.Tampered, err, "the server's key chain of %s contradicts the one this device remembers", acc.Handle), nil)
		}
	}
	if err := c.checkHandle(acc); err != nil {
		return nil, err
	}
	proven, err := c.provenChain(ctx, acc, chain)
	if known != nil && (errors.Is(err, errStale) || errors.Is(err, errWaiting) || err == nil && proven.Version() <= known.Version()) {
		return known, nil // what was taken before stays; nothing is added that is not proven
	}
	if err != nil {
		return nil, err
	}
	return proven, c.keepChain(p, known, proven)
}

// keepChain remembers a chain that is newer than the known one (nil: none), and tells what changed in the conversations with the person.
func (c *Client) keepChain(p person, known, chain *keychain.Chain) error {
	var told []string
	var where []chat.ConversationID
	if known != nil {
		var same bool
		if told, same = c.keyChanges(known, chain); !same && chain.Account() != c.self.Account {
			p.Verified = false
		}
		var err error
		if where, err = c.conversationsWith(chain.Handle()); err != nil {
			return err
		}
	}
	account := chain.Account()
	return c.state.Update(func(tx StateTx) error {
		for _, id := range where {
			for _, text := range told {
				if err := c.putEvent(tx, id, EventKeys, text); err != nil {
					return err
				}
			}
		}
		if err := tx.Put(bucketHandle, handleName(chain.Handle()), account[:]); err != nil {
			return err
		}
		return save(tx, bucketPerson, account.String(), person{Chain: chain.Entries(), Verified: p.Verified})
	})
}

// checkHandle refuses a handle that is suddenly another account's.
func (c *Client) checkHandle(acc api.Account) error {
	id, err := c.knownHandle(acc.Handle)
	if err != nil {
		return err
	}
	if !id.IsZero() && id != acc.Account {
		return c.alarm(chat.ConversationID{}, chat.Errorf(chat.Tampered, "the server says that the handle %s belongs to somebody else now; handles are never reassigned", acc.Handle), nil)
	}
	return nil
}

// knownHandle is the account that a handle belongs to, as remembered; zero where it is not known.
func (c *Client) knownHandle(handle string) (id chat.AccountID, err error) {
	err = c.state.View(func(tx StateTx) error {
		data, err := tx.Get(bucketHandle, handleName(handle))
		if len(data) == len(id) {
			id = chat.AccountID(data)
		}
		return err
	})
	return id, err
}

// checkMember says whether a person's leaf carries a key that stands in that person's key chain now.
func (c *Client) checkMember(ctx context.Context, m roster.Member) error {
	return c.checkKey(ctx, m, inChain)
}

// checkAuthor says whether a message was signed by a key that stands in its person's key chain, or did: a message may be older than the
// removal of its device.
func (c *Client) checkAuthor(ctx context.Context, m roster.Member) error {
	return c.checkKey(ctx, m, wasInChain)
}

// checkKey looks a person's leaf up in the key chain, which is fetched anew where the remembered one does not know the key.
func (c *Client) checkKey(ctx context.Context, m roster.Member, known func(*keychain.Chain, chat.Identity, roster.Member) bool) error {
	id, err := chat.ParseIdentity(m.Identity)
	if err != nil || id.IsAgent() {
		return err
	}
	account, err := c.knownHandle(id.Handle)
	if err != nil {
		return err
	}
	if !account.IsZero() {
		if _, chain, err := c.knownChain(account); err == nil && chain != nil && known(chain, id, m) {
			return nil
		}
	}
	chain, err := c.chainOf(ctx, id.Handle)
	if err != nil {
		return err
	}
	if !known(chain, id, m) {
		return chat.Errorf(chat.Tampered, "a device that %s never added is in the conversation", id.Handle)
	}
	return nil
}

func inChain(chain *keychain.Chain, id chat.Identity, m roster.Member) bool {
	d, ok := chain.Device(id.Device)
	return ok && bytes.Equal(d.Key, m.SignatureKey)
}

func wasInChain(chain *keychain.Chain, id chat.Identity, m roster.Member) bool {
	return inChain(chain, id, m) || slices.ContainsFunc(chain.Removed(), func(d keychain.Device) bool {
		return d.ID == id.Device && bytes.Equal(d.Key, m.SignatureKey)
	})
}

// DeviceInfo is one device of the account.
type DeviceInfo struct {
	ID   chat.DeviceID `json:"id"`
	Name string        `json:"name"`
	This bool          `json:"this"`
}

// Devices lists the devices of the account.
func (c *Client) Devices(ctx context.Context) ([]DeviceInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	chain, err := c.refreshChain(ctx, c.self.Account)
	if err != nil {
		return nil, err
	}
	list := []DeviceInfo{}
	for _, d := range chain.Devices() {
		list = append(list, DeviceInfo{d.ID, d.Name, d.ID == c.self.Device})
	}
	return list, nil
}
