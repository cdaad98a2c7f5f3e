package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/keychain"
	"letterlock/proof"
)

// A key chain is taken as far as the ledger's map shows that it is everybody's: keys that are shown to one person alone are in no map,
// and those that are in the map are seen by their owner, whose devices look (spec/map.md section 5).

// keyWait is how long keys that have just been made are waited for, until the ledger has them.
const (
	keyWait = 10 * time.Second
	keyStep = 200 * time.Millisecond
)

// errWaiting is the cause of an error about keys that the ledger does not hold yet, as far as it shows.
var errWaiting = errors.New("the ledger does not hold them yet")

// provenChain is as much of a chain as the map has, shown to be all that the map has.
func (c *Client) provenChain(ctx context.Context, acc api.Account, chain *keychain.Chain) (*keychain.Chain, error) {
	k := acc.Keys
	m, err := c.head(ctx, k.Head)
	if err != nil {
		return nil, err
	}
	if k.Index < 0 {
		if err := c.lacksKey(m, acc.Handle, 0, k.Next); err != nil {
			return nil, c.aloneAlarm(acc, err)
		}
		return nil, chat.Wrap(chat.Unproven, errWaiting, "%s's keys are in no map of the ledger: they may be shown to you alone, and are not used", acc.Handle)
	}
	if k.Version > chain.Version() {
		return nil, c.hiddenAlarm(acc, chain.Version()+1, nil)
	}
	proven, err := keychain.Open(chain.Entries()[:k.Version+1])
	if err != nil {
		return nil, err
	}
	label, err := proof.CheckLabel(c.policy.vrf, proof.KeyPlace{Handle: acc.Handle, N: k.Version}, k.Newest.VRFProof)
	if err == nil {
		leaf := proof.KeyEntry{Label: label.Label, Entry: proven.Head()}
		err = m.Has(label.Label, proof.LeafHash(leaf.Bytes()), k.Index, k.Newest.Proof)
	}
	if err != nil {
		return nil, c.aloneAlarm(acc, err)
	}
	if err := c.lacksKey(m, acc.Handle, k.Version+1, k.Next); err != nil {
		return nil, c.hiddenAlarm(acc, k.Version+1, err)
	}
	return proven, nil
}

// lacksKey checks that the map has no entry n of a handle's key chain.
func (c *Client) lacksKey(m proof.Map, handle string, n uint64, p api.MapProof) error {
	label, err := proof.CheckLabel(c.policy.vrf, proof.KeyPlace{Handle: handle, N: n}, p.VRFProof)
	if err != nil {
		return err
	}
	return m.Lacks(label.Label, p.Proof)
}

// aloneAlarm says that the shown keys are not those of the map.
func (c *Client) aloneAlarm(acc api.Account, cause error) error {
	if acc.Account == c.self.Account {
		return c.keyAlarm(acc, chat.Wrap(chat.Tampered, cause, "the ledger holds other keys under your name than yours: others may be shown them"))
	}
	return c.keyAlarm(acc, chat.Wrap(chat.Tampered, cause, "%s's keys are shown to you alone: they are not those in the ledger's map, and are not used", acc.Handle))
}

// hiddenAlarm says that the map has more entries than were shown.
func (c *Client) hiddenAlarm(acc api.Account, n uint64, cause error) error {
	text := fmt.Sprintf("the server does not prove that these are %s's newest keys: the ledger may hold entry %d of their key chain, and it is kept from you", acc.Handle, n)
	if acc.Account == c.self.Account {
		text = fmt.Sprintf("the server keeps an entry of your own key chain from you: the ledger may hold entry %d, which none of your devices made", n)
	}
	if cause == nil {
		return c.keyAlarm(acc, chat.Errorf(chat.Tampered, "%s", text))
	}
	return c.keyAlarm(acc, chat.Wrap(chat.Tampered, cause, "%s", text))
}

// keyAlarm keeps the chain and the proofs as they were shown.
func (c *Client) keyAlarm(acc api.Account, err error) error {
	return c.alarm(chat.ConversationID{}, err, canon.MustMarshal(append([][]byte{acc.Keys.Head, acc.Keys.Newest.Proof, acc.Keys.Next.Proof}, acc.Chain...)))
}

// checkOwnKeys makes sure that the map has this account's own key chain, all that this device knows of it and nothing more.
func (c *Client) checkOwnKeys(ctx context.Context) (*keychain.Chain, error) {
	acc, err := c.accountByID(ctx, c.self.Account)
	if err != nil {
		return nil, err
	}
	own, err := c.takeChain(ctx, acc) // what is new is told
	if err != nil {
		return nil, err
	}
	shown, err := keychain.Open(acc.Chain)
	if err != nil {
		return nil, err
	}
	proven, err := c.provenChain(ctx, acc, shown)
	if err != nil && !errors.Is(err, errWaiting) {
		return nil, err
	}
	if err != nil || proven.Version() < own.Version() {
		return nil, chat.Errorf(chat.Unproven, "the ledger does not hold your newest keys: others are shown older ones of yours, or none")
	}
	return own, nil
}

// awaitKeys waits until the ledger holds all of this account's own key chain, so that friends take it. Where that does not come (a server
// whose witnesses are away), friends take it later.
func (c *Client) awaitKeys(ctx context.Context) error {
	for until := c.now().Add(keyWait); ; {
		acc, err := c.accountByID(ctx, c.self.Account)
		if err != nil {
			return err
		}
		chain, err := c.takeChain(ctx, acc)
		waits := errors.Is(err, errWaiting) || err == nil && (acc.Keys.Index < 0 || acc.Keys.Version < chain.Version())
		switch {
		case errors.Is(err, errStale):
			return nil
		case !waits:
			return err
		case c.now().After(until):
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(keyStep):
		}
	}
}

// keyChanges says in sentences what entries changed that are new to this device; verified is false if the safety number is another one now.
func (c *Client) keyChanges(known, chain *keychain.Chain) (told []string, verified bool) {
	mine := chain.Account() == c.self.Account
	who, whose := chain.Handle(), chain.Handle()+"'s"
	if mine {
		who, whose = "you", "your"
	}
	for _, d := range slices.Concat(chain.Devices(), chain.Removed()) {
		if mine && d.ID == c.self.Device {
			continue
		}
		if d.Added > known.Version() {
			s := fmt.Sprintf("%s added a device, “%s”.", capital(who), d.Name)
			if mine {
				s = fmt.Sprintf("The device “%s” was added to your account. If that was not you, remove it now: letterlock client devices remove %s --reason stolen", d.Name, d.ID)
			}
			told = append(told, s)
		}
		if d.Removed > known.Version() {
			told = append(told, fmt.Sprintf("%s removed the device “%s” (%s).", capital(who), d.Name, d.Reason))
		}
	}
	verified = known.Recovery().Equal(chain.Recovery())
	if !verified {
		told = append(told, capital(whose)+" recovery phrase was replaced: the safety number is another one now, to be compared again.")
	}
	return told, verified
}

// conversationsWith lists the conversations that a person is in.
func (c *Client) conversationsWith(handle string) (list []chat.ConversationID, err error) {
	ids, err := c.conversationIDs()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		_, g, err := c.readGroup(id)
		if err != nil {
			return nil, err
		}
		if g != nil && slices.Contains(peopleOf(g.Roster()), handle) {
			list = append(list, id)
		}
	}
	return list, nil
}
