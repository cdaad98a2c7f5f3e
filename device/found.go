package device

import (
	"context"
	"crypto/ed25519"
	"slices"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls"
	"letterlock/mls/roster"
)

// keyPackageLife is how long a KeyPackage of a device may be used; more are put up before it ends.
const (
	keyPackageLife = 84 * 24 * time.Hour
	keyPackageGoal = 20
	keyPackageSkew = time.Hour // clocks of others may be behind
)

// fillKeyPackages keeps a supply of KeyPackages on the server, so that others can add this device while it is away.
func (c *Client) fillKeyPackages(ctx context.Context) error {
	count, err := c.server.CountKeyPackages(ctx)
	if err != nil {
		return err
	}
	if count.Left >= keyPackageGoal/2 && count.LastResort {
		return nil
	}
	var r api.KeyPackages
	made := map[string][]byte{}
	for i := count.Left; i < keyPackageGoal; i++ {
		public, err := c.newKeyPackage(false, made)
		if err != nil {
			return err
		}
		r.Packages = append(r.Packages, public)
	}
	if !count.LastResort {
		if r.LastResort, err = c.newKeyPackage(true, made); err != nil {
			return err
		}
	}
	// The private halves are written down before anybody can use the public ones.
	err = c.state.Update(func(tx StateTx) error {
		for ref, secret := range made {
			if err := tx.Put(bucketKeyPackage, ref, secret); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.server.PutKeyPackages(ctx, r)
}

func (c *Client) newKeyPackage(lastResort bool, made map[string][]byte) ([]byte, error) {
	kp, err := mls.NewKeyPackage(mls.KeyPackageOptions{
		Identity: c.identity(), Signer: c.key.Private(), SupportedExtensions: []uint16{grant.ExtensionType},
		NotBefore: c.now().Add(-keyPackageSkew), NotAfter: c.now().Add(keyPackageLife), LastResort: lastResort, Rand: c.rand,
	})
	if err != nil {
		return nil, err
	}
	secret, err := kp.MarshalBinary()
	if err != nil {
		return nil, err
	}
	made[hexName(kp.Ref)] = secret
	return kp.Public, nil
}

// claim takes one KeyPackage of each device of a person, and checks that each is really of a device in the person's key chain.
func (c *Client) claim(ctx context.Context, handle string) ([][]byte, error) {
	chain, err := c.chainOf(ctx, handle)
	if err != nil {
		return nil, err
	}
	claimed, err := c.server.ClaimKeyPackages(ctx, api.ClaimKeyPackages{Account: chain.Account()})
	if err != nil {
		return nil, err
	}
	var packages [][]byte
	for _, p := range claimed.Packages {
		info, err := roster.InspectKeyPackage(p.KeyPackage, c.now())
		if err != nil {
			return nil, chat.Wrap(chat.Tampered, err, "the server gave a KeyPackage of %s that does not hold", handle)
		}
		id, err := chat.ParseIdentity(info.Identity)
		if err != nil {
			return nil, err
		}
		m := roster.Member{Identity: info.Identity, SignatureKey: info.SignatureKey}
		if id.IsAgent() || id.Handle != handle || id.Host != c.self.Host || !inChain(chain, id, m) {
			return nil, c.alarm(chat.ConversationID{}, chat.Errorf(chat.Tampered, "the server gave a KeyPackage for %s that no device of theirs made", handle), p.KeyPackage)
		}
		if string(info.Identity) != string(c.identity()) {
			packages = append(packages, p.KeyPackage)
		}
	}
	return packages, nil
}

// found makes a conversation with a person: a private one, or a thread for one partner. The friend is added by the first commit; whether that is
// possible is found out first, so that nothing is founded in vain.
func (c *Client) found(ctx context.Context, handle, partner string) (chat.ConversationID, error) {
	id := chat.NewConversationID()
	packages, err := c.claimAll(ctx, handle, c.self.Handle)
	if err != nil {
		return id, err
	}
	thread := grant.NewThread(c.self.Host, partner)
	g, err := mls.Create(mls.CreateOptions{
		GroupID: id[:], Identity: c.identity(), Signer: c.key.Private(), SupportedExtensions: []uint16{grant.ExtensionType},
		Extensions: groupExtensions(thread, c.self.ServerKey, c.self.Host), Now: c.now(), Rand: c.rand,
	})
	if err != nil {
		return id, err
	}
	info, err := g.GroupInfo()
	if err != nil {
		return id, err
	}
	conv := conversation{ID: id, Kind: thread.Kind, Partner: partner, With: handle, Created: c.ms()}
	if err := c.state.Update(func(tx StateTx) error { return saveGroup(tx, conv, g) }); err != nil {
		return id, err
	}
	if _, err := c.server.Found(ctx, api.NewConversation{GroupInfo: info}); err != nil {
		return id, err
	}
	conv.Founded = true
	if err := c.state.Update(func(tx StateTx) error { return save(tx, bucketConversation, id.String(), conv) }); err != nil {
		return id, err
	}
	return id, c.addDevices(ctx, id, packages)
}

// addPeople adds every device of the people that is not yet in the conversation.
func (c *Client) addPeople(ctx context.Context, id chat.ConversationID, handles ...string) error {
	packages, err := c.claimAll(ctx, handles...)
	if err != nil {
		return err
	}
	return c.addDevices(ctx, id, packages)
}

// claimAll takes one KeyPackage of each device of these people.
func (c *Client) claimAll(ctx context.Context, handles ...string) (packages [][]byte, err error) {
	for _, h := range handles {
		claimed, err := c.claim(ctx, h)
		if err != nil {
			return nil, err
		}
		if len(claimed) == 0 && h != c.self.Handle {
			return nil, chat.Errorf(chat.Unavailable, "%s has no device that can be written to yet: try again when they have been online", h)
		}
		packages = append(packages, claimed...)
	}
	return packages, nil
}

// addDevices adds those devices that are not in the conversation.
func (c *Client) addDevices(ctx context.Context, id chat.ConversationID, packages [][]byte) error {
	return c.commit(ctx, id, func(g *mls.Group, _ grant.Thread) (*change, error) {
		var add [][]byte
		for _, p := range packages {
			info, err := roster.InspectKeyPackage(p, c.now())
			if err != nil {
				return nil, err
			}
			if _, in := g.Roster().MemberByIdentity(info.Identity); !in {
				add = append(add, p)
			}
		}
		if len(add) == 0 {
			return nil, nil
		}
		return &change{add: add}, nil
	})
}

// groupExtensions are those of a new conversation's GroupContext.
func groupExtensions(t grant.Thread, serverKey []byte, host string) roster.Extensions {
	return roster.Extensions{
		roster.RequiredCapabilities{Extensions: []uint16{grant.ExtensionType}}.Extension(),
		roster.ExternalSendersExtension(roster.ExternalSender{SignatureKey: serverKey, Credential: roster.BasicCredential([]byte("mimi://" + host))}),
		{Type: grant.ExtensionType, Data: t.Marshal()},
	}
}

// withThread replaces the letterlock extension and leaves the others.
func withThread(x roster.Extensions, t grant.Thread) roster.Extensions {
	x = slices.Clone(x)
	for i := range x {
		if x[i].Type == grant.ExtensionType {
			x[i].Data = t.Marshal()
		}
	}
	return x
}

// peopleOf lists the handles that have a device in the group, each once, in the order of leaves.
func peopleOf(g *roster.Group) []string {
	var handles []string
	for _, m := range g.Members() {
		if id, err := chat.ParseIdentity(m.Identity); err == nil && !id.IsAgent() && !slices.Contains(handles, id.Handle) {
			handles = append(handles, id.Handle)
		}
	}
	return handles
}

// deviceKeys lists the signature keys of the people's devices in the group.
func deviceKeys(g *roster.Group) (keys [][32]byte) {
	for _, m := range g.Members() {
		if id, err := chat.ParseIdentity(m.Identity); err == nil && !id.IsAgent() && len(m.SignatureKey) == ed25519.PublicKeySize {
			keys = append(keys, [32]byte(m.SignatureKey))
		}
	}
	return keys
}
