package device

import (
	"bytes"
	"context"
	"crypto/ed25519"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/keychain"
)

// SignUp takes a handle on a server and returns the client with the recovery phrase, which is shown once and kept nowhere.
func SignUp(ctx context.Context, cfg Config, url, handle, deviceName string) (*Client, string, error) {
	if err := chat.CheckHandle(handle); err != nil {
		return nil, "", err
	}
	if c, phrase, err := resumeSignUp(ctx, cfg, handle); c != nil || err != nil {
		return c, phrase, err
	}
	c, err := begin(ctx, cfg, url, handle, deviceName)
	if err != nil {
		return nil, "", err
	}
	c.self.Account = chat.NewAccountID()
	phrase, recovery, err := keychain.NewRecovery(c.rand)
	if err != nil {
		return nil, "", chat.Wrap(chat.Internal, err, "no recovery key could be made")
	}
	defer recovery.Wipe()
	entry, err := keychain.Create(keychain.Creation{
		Account: c.self.Account, Host: c.self.Host, Handle: handle, Device: c.self.Device, Name: deviceName, At: c.now(),
	}, c.key, recovery)
	if err != nil {
		return nil, "", err
	}
	// The keys are written down before the server hears of them: a sign-up whose answer is lost is finished by trying again.
	if err := c.storeSelf(phrase, entry); err != nil {
		return nil, "", err
	}
	return c, phrase, c.finishSignUp(ctx, entry)
}

// finishSignUp takes the handle. It may run again after a crash or a lost answer: the same entry is the same account.
func (c *Client) finishSignUp(ctx context.Context, entry []byte) error {
	if err := c.start(); err != nil {
		return err
	}
	if _, err := c.server.SignUp(ctx, api.SignUp{Entry: entry, Invite: c.invite}); err != nil {
		if !chat.Is(err, chat.Exists) || !c.isOurs(ctx, entry) {
			return c.forgetSelf(err)
		}
	}
	if err := c.fillKeyPackages(ctx); err != nil {
		return err
	}
	if err := c.firstPolicy(ctx); err != nil {
		return err
	}
	return c.awaitKeys(ctx)
}

// isOurs reports whether the handle was taken with this very entry.
func (c *Client) isOurs(ctx context.Context, entry []byte) bool {
	acc, err := c.server.AccountByHandle(ctx, c.self.Handle)
	return err == nil && len(acc.Chain) > 0 && bytes.Equal(acc.Chain[0], entry)
}

// resumeSignUp goes on with a sign-up that was begun in this folder and whose phrase was never shown.
func resumeSignUp(ctx context.Context, cfg Config, handle string) (*Client, string, error) {
	c := newClient(cfg)
	var phrase []byte
	var p person
	err := c.state.View(func(tx StateTx) (err error) {
		if _, err = load(tx, bucketSelf, "self", &c.self); err != nil {
			return err
		}
		if phrase, err = tx.Get(bucketSelf, "phrase"); err != nil || phrase == nil {
			return err
		}
		_, err = load(tx, bucketPerson, c.self.Account.String(), &p)
		return err
	})
	if err != nil || phrase == nil || c.self.Handle != handle || len(p.Chain) == 0 {
		return nil, "", err
	}
	return c, string(phrase), c.finishSignUp(ctx, p.Chain[0])
}

// PhraseShown forgets the recovery phrase, once the person has it.
func (c *Client) PhraseShown() error {
	return c.state.Update(func(tx StateTx) error { return tx.Delete(bucketSelf, "phrase") })
}

// Recover adds this device to an account by its recovery phrase.
func Recover(ctx context.Context, cfg Config, url, handle, deviceName, phrase string) (*Client, error) {
	recovery, err := keychain.RecoveryFromPhrase(phrase)
	if err != nil {
		return nil, err
	}
	defer recovery.Wipe()
	c, err := begin(ctx, cfg, url, handle, deviceName)
	if err != nil {
		return nil, err
	}
	if c.server, err = c.dial(url, chat.AccountID{}, chat.DeviceID{}, c.key.Private()); err != nil {
		return nil, err
	}
	acc, err := c.server.AccountByHandle(ctx, handle)
	if err != nil {
		return nil, err
	}
	chain, err := keychain.Open(acc.Chain)
	if err != nil {
		return nil, chat.Wrap(chat.Tampered, err, "the server's key chain of %s does not hold", handle)
	}
	if !chain.Recovery().Equal(recovery.Public()) {
		return nil, chat.Errorf(chat.Forbidden, "this is not the recovery phrase of %s", handle)
	}
	c.self.Account = chain.Account()
	request, err := chain.Request(c.self.Device, deviceName, c.key)
	if err != nil {
		return nil, err
	}
	entry, err := chain.AddDevice(recovery, request, c.now())
	if err != nil {
		return nil, err
	}
	if err := c.storeSelf("", append(chain.Entries(), entry)...); err != nil {
		return nil, err
	}
	// Before the entry is in the chain, this device cannot sign in; the entry's own signature is enough.
	if err := c.server.AppendEntry(ctx, api.AppendEntry{Entry: entry}); err != nil {
		return nil, c.forgetSelf(err)
	}
	if err := c.start(); err != nil {
		return nil, err
	}
	if err := c.fillKeyPackages(ctx); err != nil {
		return nil, err
	}
	if err := c.firstPolicy(ctx); err != nil {
		return nil, err
	}
	return c, c.awaitKeys(ctx)
}

// begin makes a new device: keys, and the server's as it shows them now, which are pinned from here on.
func begin(ctx context.Context, cfg Config, url, handle, deviceName string) (*Client, error) {
	c := newClient(cfg)
	taken := false
	if err := c.state.View(func(tx StateTx) (err error) { taken, err = load(tx, bucketSelf, "self", &self{}); return err }); err != nil {
		return nil, err
	}
	if taken {
		return nil, chat.Errorf(chat.Exists, "this folder belongs to a device already: use another one")
	}
	var err error
	if c.key, err = keychain.NewDeviceKey(c.rand); err != nil {
		return nil, chat.Wrap(chat.Internal, err, "no device key could be made")
	}
	c.self = self{Version: 1, Handle: handle, Device: chat.NewDeviceID(), Name: deviceName, Seed: c.key.Seed(), ServerURL: url}
	server, err := c.dial(url, c.self.Account, c.self.Device, c.key.Private())
	if err != nil {
		return nil, err
	}
	s, err := server.Server(ctx)
	if err != nil {
		return nil, err
	}
	if err := chat.CheckHost(s.Host); err != nil || len(s.ServerKey) != ed25519.PublicKeySize {
		return nil, chat.Errorf(chat.Invalid, "this is not a letterlock server, or one too new for this client")
	}
	c.self.Host, c.self.ServerKey, c.self.LedgerVKey, c.self.VRFKey = s.Host, s.ServerKey, s.LedgerVKey, s.VRFKey
	return c, nil
}

// storeSelf writes down who the device is; the phrase, where there is one, until it was shown.
func (c *Client) storeSelf(phrase string, chain ...[]byte) error {
	return c.state.Update(func(tx StateTx) error {
		if phrase != "" {
			if err := tx.Put(bucketSelf, "phrase", []byte(phrase)); err != nil {
				return err
			}
		}
		if err := save(tx, bucketPerson, c.self.Account.String(), person{Chain: chain, Verified: true}); err != nil {
			return err
		}
		if err := tx.Put(bucketHandle, handleName(c.self.Handle), c.self.Account[:]); err != nil {
			return err
		}
		return save(tx, bucketSelf, "self", c.self)
	})
}

// forgetSelf undoes storeSelf where the server said no for good; where the answer is unknown, the state stays.
func (c *Client) forgetSelf(cause error) error {
	switch chat.KindOf(cause) {
	case chat.Unavailable, chat.Internal:
		return cause
	}
	err := c.state.Update(func(tx StateTx) error {
		if err := tx.Delete(bucketPerson, c.self.Account.String()); err != nil {
			return err
		}
		if err := tx.Delete(bucketHandle, handleName(c.self.Handle)); err != nil {
			return err
		}
		if err := tx.Delete(bucketSelf, "phrase"); err != nil {
			return err
		}
		return tx.Delete(bucketSelf, "self")
	})
	if err != nil {
		return err
	}
	return cause
}

// AddPreference changes a wish about partner apps: everyone's clients and the server heed it.
func (c *Client) AddPreference(ctx context.Context, p keychain.Preference) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.appendOwn(ctx, func(chain *keychain.Chain) ([]byte, error) { return chain.SetPreference(c.key, p, c.now()) })
}

// RemoveDevice takes a device out of the account. Its leaves are removed from every conversation at the next sync of any member.
func (c *Client) RemoveDevice(ctx context.Context, id chat.DeviceID, why keychain.Reason) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.appendOwn(ctx, func(chain *keychain.Chain) ([]byte, error) { return chain.RemoveDevice(c.key, id, why, c.now()) })
}

// appendOwn adds an entry to the account's own key chain, made for its newest version.
func (c *Client) appendOwn(ctx context.Context, build func(*keychain.Chain) ([]byte, error)) error {
	chain, err := c.refreshChain(ctx, c.self.Account)
	if err != nil {
		return err
	}
	entry, err := build(chain)
	if err != nil {
		return err
	}
	if err := c.server.AppendEntry(ctx, api.AppendEntry{Entry: entry}); err != nil {
		return err
	}
	return c.keepOwn(ctx, entry, chain)
}

// keepOwn remembers an entry that this device made, and waits until the ledger holds it.
func (c *Client) keepOwn(ctx context.Context, entry []byte, before *keychain.Chain) error {
	chain, err := before.Append(entry)
	if err != nil {
		return err
	}
	err = c.state.Update(func(tx StateTx) error {
		return save(tx, bucketPerson, c.self.Account.String(), person{Chain: chain.Entries(), Verified: true})
	})
	if err != nil {
		return err
	}
	return c.awaitKeys(ctx)
}
