package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/store"
)

// Registration is who may sign up.
type Registration string

// The ways to register.
const (
	Open     Registration = "open"   // anybody who reaches the server
	ByInvite Registration = "invite" // who has a code that the operator made
	Closed   Registration = "closed" // nobody new
)

// ParseRegistration reads a way to register; empty is Open.
func ParseRegistration(s string) (Registration, error) {
	switch r := Registration(s); r {
	case "":
		return Open, nil
	case Open, ByInvite, Closed:
		return r, nil
	}
	return "", chat.Errorf(chat.Invalid, "registration is open, invite or closed, not %q", s)
}

// Limits of what the operator says.
const (
	maxReason         = 256 // bytes
	maxInvites        = 10_000
	maxInviteUses     = 1_000_000
	maxInviteLifetime = 365 * 24 * time.Hour
	maxInviteCode     = 64 // bytes that are looked at; ours have 26
)

// admit lets a new account in, within the transaction that makes it: an error undoes it, and the use of the code with it.
func (s *Service) admit(tx *store.Tx, code string) error {
	switch s.Registration {
	case "", Open:
		return nil
	case ByInvite:
		if code == "" {
			return chat.Errorf(chat.Forbidden, "this server takes new people by invitation: give the code that its operator made for you")
		}
		err := tx.UseInvite(hashInvite(code), s.Now().UnixMilli())
		if errors.Is(err, store.ErrNotFound) {
			return chat.Errorf(chat.Forbidden, "this invitation is not valid, or not any more: ask for another one")
		}
		return err
	}
	return chat.Errorf(chat.Forbidden, "this server takes no new people")
}

// hashInvite is how a code is stored. Case and the space around it do not count.
func hashInvite(code string) [32]byte {
	code = strings.TrimSpace(code)
	return sha256.Sum256([]byte(strings.ToUpper(code[:min(len(code), maxInviteCode)])))
}

// CreateInvite makes an invitation. Its code is shown once: the server keeps a hash.
func (s *Service) CreateInvite(ctx context.Context, r api.NewInvite) (api.Invite, error) {
	life := time.Duration(r.ExpiresIn) * time.Second
	switch {
	case r.Uses < 1 || r.Uses > maxInviteUses:
		return api.Invite{}, chat.Errorf(chat.Invalid, "an invitation has 1 to %d uses", maxInviteUses)
	case r.ExpiresIn < 1 || r.ExpiresIn > int64(maxInviteLifetime.Seconds()):
		return api.Invite{}, chat.Errorf(chat.Invalid, "an invitation lasts a second to %d days", int(maxInviteLifetime.Hours()/24))
	}
	code := rand.Text() // 26 characters, more than 128 bits
	now := s.Now()
	row := store.Invite{CodeHash: hashInvite(code), Created: now.UnixMilli(), Expires: now.Add(life).UnixMilli(), Uses: r.Uses}
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		all, err := tx.Invites()
		if err != nil {
			return err
		}
		if len(all) >= maxInvites {
			return chat.Errorf(chat.TooMany, "there are %d invitations: revoke some first", len(all))
		}
		return tx.PutInvite(row)
	})
	out := inviteOf(row)
	out.Code = code
	return out, err
}

// inviteOf is what the operator sees of an invitation: never its code, which is not stored.
func inviteOf(i store.Invite) api.Invite {
	return api.Invite{ID: hex.EncodeToString(i.CodeHash[:8]), Created: i.Created, Expires: i.Expires, Uses: i.Uses, Used: i.Used}
}

// ListInvites lists the invitations, those that are used up and those that expired in the last hour with them.
func (s *Service) ListInvites(ctx context.Context) (list api.InviteList, err error) {
	list.Invites = []api.Invite{}
	return list, s.Store.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.Invites()
		for _, i := range rows {
			list.Invites = append(list.Invites, inviteOf(i))
		}
		return err
	})
}

// RevokeInvite ends an invitation by its id. Who came in by it stays.
func (s *Service) RevokeInvite(ctx context.Context, id string) error {
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		rows, err := tx.Invites()
		if err != nil {
			return err
		}
		for _, i := range rows {
			if inviteOf(i).ID == id {
				return tx.DropInvite(i.CodeHash)
			}
		}
		return chat.Errorf(chat.NotFound, "there is no such invitation")
	})
}

// notBlocked refuses a blocked person, who reads why.
func notBlocked(tx *store.Tx, id chat.AccountID) error {
	b, err := tx.Block(id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case b.Reason == "":
		return chat.Errorf(chat.Forbidden, "this account is blocked by the operator of the server")
	}
	return chat.Errorf(chat.Forbidden, "this account is blocked by the operator of the server: %s", b.Reason)
}

// reachable refuses what would bring a blocked person into something new. Others hear no more than that.
func reachable(tx *store.Tx, id chat.AccountID) error {
	blocked, err := tx.Blocked(id)
	if err == nil && blocked {
		err = chat.Errorf(chat.Forbidden, "this person cannot be reached now")
	}
	return err
}

// BlockAccount shuts a person out at once: sessions end in this transaction, live connections right after it. Nothing is deleted.
func (s *Service) BlockAccount(ctx context.Context, handle string, r api.BlockAccount) error {
	if len(r.Reason) > maxReason || !utf8.ValidString(r.Reason) || strings.ContainsAny(r.Reason, "\r\n") {
		return chat.Errorf(chat.Invalid, "a reason is one line of at most %d bytes", maxReason)
	}
	return s.operate(ctx, handle, true, func(tx *store.Tx, id chat.AccountID) error {
		return errors.Join(tx.BlockAccount(store.Block{Account: id, Since: s.Now().UnixMilli(), Reason: r.Reason}), tx.EndAccountSessions(id))
	})
}

// UnblockAccount lets a person in again. Their devices sign in by themselves.
func (s *Service) UnblockAccount(ctx context.Context, handle string) error {
	return s.operate(ctx, handle, false, func(tx *store.Tx, id chat.AccountID) error {
		err := tx.UnblockAccount(id)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
}

// operate changes whether an account is blocked, and tells who holds its connections.
func (s *Service) operate(ctx context.Context, handle string, blocked bool, change func(*store.Tx, chat.AccountID) error) error {
	if err := chat.CheckHandle(handle); err != nil {
		return err
	}
	var id chat.AccountID
	err := s.Store.Update(ctx, func(tx *store.Tx) (err error) {
		if id, err = s.find(tx, handle); err != nil {
			return err
		}
		return change(tx, id)
	})
	if err != nil {
		return err
	}
	s.sessions.Drop()
	if s.Hooks.Blocked != nil {
		s.Hooks.Blocked(id, blocked)
	}
	return nil
}

// ListBlocked lists the blocked accounts.
func (s *Service) ListBlocked(ctx context.Context) (list api.AccountStandings, err error) {
	list.Accounts = []api.AccountStanding{}
	return list, s.Store.View(ctx, func(tx *store.Tx) error {
		blocks, err := tx.Blocks()
		for _, b := range blocks {
			if err != nil {
				break
			}
			var a api.AccountStanding
			a, err = s.standing(tx, b.Account)
			list.Accounts = append(list.Accounts, a)
		}
		return err
	})
}

// ShowAccount says how an account stands.
func (s *Service) ShowAccount(ctx context.Context, handle string) (a api.AccountStanding, err error) {
	if err := chat.CheckHandle(handle); err != nil {
		return a, err
	}
	return a, s.Store.View(ctx, func(tx *store.Tx) error {
		id, err := s.find(tx, handle)
		if err == nil {
			a, err = s.standing(tx, id)
		}
		return err
	})
}

func (s *Service) standing(tx *store.Tx, id chat.AccountID) (api.AccountStanding, error) {
	row, err := tx.Account(id)
	if err != nil {
		return api.AccountStanding{}, fmt.Errorf("account: %w", err)
	}
	chain, err := s.Chain(tx, id)
	if err != nil {
		return api.AccountStanding{}, err
	}
	a := api.AccountStanding{Account: id, Handle: row.Handle, Created: row.Created, Devices: len(chain.Devices())}
	block, err := tx.Block(id)
	if errors.Is(err, store.ErrNotFound) {
		return a, nil
	}
	a.Blocked, a.Reason = block.Since, block.Reason
	return a, err
}
