package account

import (
	"bytes"
	"context"
	"errors"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls/roster"
	"letterlock/store"
)

const (
	// MaxKeyPackages is how many KeyPackages of one use the server keeps for a device.
	MaxKeyPackages = 200
	// MaxKeyPackageSize is the largest KeyPackage, in bytes.
	MaxKeyPackageSize = 4 << 10
	// MaxKeyPackageLifetime is the furthest end of a KeyPackage's lifetime.
	MaxKeyPackageLifetime = 100 * 24 * time.Hour
	// minRemaining is how long a KeyPackage must still be good when it is put or claimed: a commit takes a moment.
	minRemaining = time.Hour
	maxPerPut    = 100
)

// PutKeyPackages stores the calling device's own KeyPackages: all of them or none.
func (s *Service) PutKeyPackages(ctx context.Context, r api.KeyPackages) error {
	c, err := api.CallerFrom(ctx)
	if err != nil {
		return err
	}
	if len(r.Packages) > maxPerPut {
		return chat.Errorf(chat.TooLarge, "put at most %d KeyPackages at a time", maxPerPut)
	}
	key, err := s.callerKey(ctx, c)
	if err != nil {
		return err
	}
	var rows []store.KeyPackage
	for _, kp := range r.Packages {
		row, err := s.inspect(kp, c, key, false)
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	if len(r.LastResort) > 0 {
		row, err := s.inspect(r.LastResort, c, key, true)
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error { return s.putKeyPackages(tx, c, key, rows) })
}

func (s *Service) putKeyPackages(tx *store.Tx, c api.Caller, key []byte, rows []store.KeyPackage) error {
	chain, err := s.Chain(tx, c.Account)
	if err != nil {
		return err
	}
	if d, ok := chain.Device(c.Device); !ok || !bytes.Equal(d.Key, key) { // it may have been removed since
		return noSession()
	}
	for _, row := range rows {
		if row.LastResort {
			if err := tx.DropLastResort(c.Account, c.Device); err != nil {
				return err
			}
		}
		if err := tx.PutKeyPackage(c.Account, row); err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
	}
	left, _, err := tx.CountKeyPackages(c.Account, c.Device, 0)
	if err == nil && left > MaxKeyPackages {
		err = chat.Errorf(chat.TooMany, "the server keeps %d KeyPackages for a device: put fewer", MaxKeyPackages)
	}
	return err
}

// callerKey is the device's key in its key chain.
func (s *Service) callerKey(ctx context.Context, c api.Caller) (key []byte, err error) {
	return key, s.Store.View(ctx, func(tx *store.Tx) error {
		chain, err := s.Chain(tx, c.Account)
		if err != nil {
			return err
		}
		d, ok := chain.Device(c.Device)
		if !ok {
			return noSession()
		}
		key = d.Key
		return nil
	})
}

// inspect accepts a KeyPackage of exactly the caller's leaf: identity and signature key of its key chain, a lifetime within bounds.
func (s *Service) inspect(kp []byte, c api.Caller, key []byte, lastResort bool) (store.KeyPackage, error) {
	none := store.KeyPackage{}
	if len(kp) > MaxKeyPackageSize {
		return none, chat.Errorf(chat.TooLarge, "a KeyPackage has at most %d bytes", MaxKeyPackageSize)
	}
	now := s.Now()
	info, err := roster.InspectKeyPackage(kp, now)
	if err != nil {
		return none, chat.Wrap(chat.Invalid, err, "this is no valid KeyPackage (suite, signatures, lifetime)")
	}
	if string(info.Identity) != chat.DeviceURI(s.Config.Server.Host, c.Handle, c.Device) || !bytes.Equal(info.SignatureKey, key) {
		return none, chat.Errorf(chat.Forbidden, "a KeyPackage must carry the calling device's own identity and key")
	}
	if info.NotAfter.Before(now.Add(minRemaining)) || info.NotAfter.After(now.Add(MaxKeyPackageLifetime)) {
		return none, chat.Errorf(chat.Invalid, "a KeyPackage must be good for at least an hour and at most %d days", int(MaxKeyPackageLifetime.Hours()/24))
	}
	if info.LastResort != lastResort {
		return none, chat.Errorf(chat.Invalid, "last_resort is for KeyPackages with the last_resort extension, and only for those")
	}
	return store.KeyPackage{Device: c.Device, Ref: info.Ref, LastResort: lastResort, NotAfter: info.NotAfter.UnixMilli(), Bytes: kp}, nil
}

// CountKeyPackages says how many of the calling device's KeyPackages are left.
func (s *Service) CountKeyPackages(ctx context.Context) (n api.KeyPackageCount, err error) {
	c, err := api.CallerFrom(ctx)
	if err != nil {
		return n, err
	}
	return n, s.Store.View(ctx, func(tx *store.Tx) error {
		n.Left, n.LastResort, err = tx.CountKeyPackages(c.Account, c.Device, s.usableBeyond())
		return err
	})
}

func (s *Service) usableBeyond() int64 { return s.Now().Add(minRemaining).UnixMilli() }

// ClaimKeyPackages hands out one KeyPackage of each device of an account that has any; for the caller's own account of each other
// device. Those of one use are handed out once.
func (s *Service) ClaimKeyPackages(ctx context.Context, r api.ClaimKeyPackages) (out api.ClaimedKeyPackages, err error) {
	c, err := api.CallerFrom(ctx)
	if err != nil {
		return out, err
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		out.Packages = []api.ClaimedKeyPackage{} // the function may run again
		if err := s.mayClaim(tx, c.Account, r.Account); err != nil {
			return err
		}
		if err := reachable(tx, r.Account); err != nil {
			return err
		}
		chain, err := s.Chain(tx, r.Account)
		if err != nil {
			return err
		}
		for _, d := range chain.Devices() {
			if r.Account == c.Account && d.ID == c.Device {
				continue
			}
			kp, err := tx.TakeKeyPackage(r.Account, d.ID, s.usableBeyond())
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			out.Packages = append(out.Packages, api.ClaimedKeyPackage{Device: d.ID, KeyPackage: kp})
		}
		return nil
	})
	return out, err
}

// mayClaim allows friends, people of a common conversation and oneself. Everybody else hears what a stranger hears.
func (s *Service) mayClaim(tx *store.Tx, caller, target chat.AccountID) error {
	if caller == target {
		return nil
	}
	state, _, err := tx.Friend(caller, target)
	if err == nil && state == store.FriendMutual {
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	common, err := tx.HaveCommonConversation(caller, target)
	if err == nil && !common {
		err = chat.Errorf(chat.Forbidden, "only friends and people of a common conversation can be added: ask them first")
	}
	return err
}
