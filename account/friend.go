package account

import (
	"context"
	"errors"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/store"
)

// DefaultFriends is how many friends and requests an account has at most, unless the operator says otherwise.
const DefaultFriends = 5000

var friendStates = map[store.FriendState]api.FriendState{
	store.FriendAsked: api.Requested, store.FriendAsking: api.Incoming, store.FriendMutual: api.Friends,
}

// ListFriends answers with the caller's own list. Nobody else's is ever answered.
func (s *Service) ListFriends(ctx context.Context) (api.FriendList, error) {
	list := api.FriendList{Friends: []api.Friend{}}
	c, err := api.CallerFrom(ctx)
	if err != nil {
		return list, err
	}
	return list, s.Store.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.Friends(c.Account)
		for _, f := range rows {
			list.Friends = append(list.Friends, api.Friend{Account: f.Account, Handle: f.Handle, State: friendStates[f.State], Since: f.Since})
		}
		return err
	})
}

// AddFriend asks, or accepts where the other asked. Again changes nothing.
func (s *Service) AddFriend(ctx context.Context, handle string) (f api.Friend, err error) {
	c, err := api.CallerFrom(ctx)
	if err != nil {
		return f, err
	}
	if err := chat.CheckHandle(handle); err != nil {
		return f, err
	}
	return f, s.Store.Update(ctx, func(tx *store.Tx) error {
		other, err := s.find(tx, handle)
		if err != nil {
			return err
		}
		if other == c.Account {
			return chat.Errorf(chat.Invalid, "you cannot be your own friend here")
		}
		if err := reachable(tx, other); err != nil {
			return err
		}
		state, since, err := s.befriend(tx, c.Account, other)
		f = api.Friend{Account: other, Handle: handle, State: friendStates[state], Since: since}
		return err
	})
}

func (s *Service) befriend(tx *store.Tx, caller, other chat.AccountID) (store.FriendState, int64, error) {
	now := s.Now().UnixMilli()
	state, since, err := tx.Friend(caller, other)
	switch {
	case errors.Is(err, store.ErrNotFound):
		if err := s.roomForFriend(tx, caller, other); err != nil {
			return 0, 0, err
		}
		return store.FriendAsked, now, tx.PutFriend(caller, other, store.FriendAsked, store.FriendAsking, now)
	case err != nil:
		return 0, 0, err
	case state == store.FriendAsking:
		return store.FriendMutual, now, tx.PutFriend(caller, other, store.FriendMutual, store.FriendMutual, now)
	}
	return state, since, nil
}

func (s *Service) roomForFriend(tx *store.Tx, accounts ...chat.AccountID) error {
	most := s.MaxFriends
	if most == 0 {
		most = DefaultFriends
	}
	for _, a := range accounts {
		n, err := tx.CountFriends(a)
		if err != nil {
			return err
		}
		if n >= most {
			return chat.Errorf(chat.TooMany, "one of the two has %d friends and requests, which is the most", most)
		}
	}
	return nil
}

// RemoveFriend declines, takes back or ends.
func (s *Service) RemoveFriend(ctx context.Context, handle string) error {
	c, err := api.CallerFrom(ctx)
	if err != nil {
		return err
	}
	if err := chat.CheckHandle(handle); err != nil {
		return err
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		other, err := s.find(tx, handle)
		if err != nil {
			return err
		}
		err = tx.DropFriend(c.Account, other)
		if errors.Is(err, store.ErrNotFound) {
			return chat.Errorf(chat.NotFound, "%q is not among your friends and requests", handle)
		}
		return err
	})
}
