package world

import (
	"context"

	"letterlock/api"
	"letterlock/chat"
)

// The calls of device.Server, each made through the liar of the moment.

func (b *between) Server(ctx context.Context) (api.Server, error) {
	return b.now().Server(ctx)
}

func (b *between) SignUp(ctx context.Context, r api.SignUp) (api.SignedUp, error) {
	return b.now().SignUp(ctx, r)
}

func (b *between) SignIn(ctx context.Context, r api.SignIn) (api.Session, error) {
	return b.now().SignIn(ctx, r)
}

func (b *between) AccountByHandle(ctx context.Context, handle string) (api.Account, error) {
	return b.now().AccountByHandle(ctx, handle)
}

func (b *between) AccountByID(ctx context.Context, id chat.AccountID) (api.Account, error) {
	return b.now().AccountByID(ctx, id)
}

func (b *between) AppendEntry(ctx context.Context, r api.AppendEntry) error {
	return b.now().AppendEntry(ctx, r)
}

func (b *between) PutKeyPackages(ctx context.Context, r api.KeyPackages) error {
	return b.now().PutKeyPackages(ctx, r)
}

func (b *between) CountKeyPackages(ctx context.Context) (api.KeyPackageCount, error) {
	return b.now().CountKeyPackages(ctx)
}

func (b *between) ClaimKeyPackages(ctx context.Context, r api.ClaimKeyPackages) (api.ClaimedKeyPackages, error) {
	return b.now().ClaimKeyPackages(ctx, r)
}

func (b *between) ListFriends(ctx context.Context) (api.FriendList, error) {
	return b.now().ListFriends(ctx)
}

func (b *between) AddFriend(ctx context.Context, handle string) (api.Friend, error) {
	return b.now().AddFriend(ctx, handle)
}

func (b *between) RemoveFriend(ctx context.Context, handle string) error {
	return b.now().RemoveFriend(ctx, handle)
}

func (b *between) Found(ctx context.Context, r api.NewConversation) (api.Conversation, error) {
	return b.now().Found(ctx, r)
}

func (b *between) ListConversations(ctx context.Context) (api.ConversationList, error) {
	return b.now().ListConversations(ctx)
}

func (b *between) GetConversation(ctx context.Context, c chat.ConversationID) (api.Conversation, error) {
	return b.now().GetConversation(ctx, c)
}

func (b *between) Commit(ctx context.Context, c chat.ConversationID, r api.Commit) (api.Accepted, error) {
	return b.now().Commit(ctx, c, r)
}

func (b *between) SendMessage(ctx context.Context, c chat.ConversationID, r api.Message) (api.Accepted, error) {
	return b.now().SendMessage(ctx, c, r)
}

func (b *between) Log(ctx context.Context, c chat.ConversationID, after uint64, limit int, waitSeconds int) (api.Page, error) {
	return b.now().Log(ctx, c, after, limit, waitSeconds)
}

func (b *between) DeleteMessage(ctx context.Context, c chat.ConversationID, seq uint64) error {
	return b.now().DeleteMessage(ctx, c, seq)
}

func (b *between) Welcomes(ctx context.Context, waitSeconds int) (api.Mailbox, error) {
	return b.now().Welcomes(ctx, waitSeconds)
}

func (b *between) DeleteWelcome(ctx context.Context, id chat.MessageID) error {
	return b.now().DeleteWelcome(ctx, id)
}

func (b *between) OwnCount(ctx context.Context, c chat.ConversationID) (api.OwnCount, error) {
	return b.now().OwnCount(ctx, c)
}

func (b *between) ListPartners(ctx context.Context) (api.PartnerList, error) {
	return b.now().ListPartners(ctx)
}

func (b *between) GetConsent(ctx context.Context, request string) (api.ConsentRequest, error) {
	return b.now().GetConsent(ctx, request)
}

func (b *between) PutGrant(ctx context.Context, r api.PutGrant) (api.Record, error) {
	return b.now().PutGrant(ctx, r)
}

func (b *between) FinishConsent(ctx context.Context, request string) (api.Redirect, error) {
	return b.now().FinishConsent(ctx, request)
}

func (b *between) RefuseConsent(ctx context.Context, request string) (api.Redirect, error) {
	return b.now().RefuseConsent(ctx, request)
}

func (b *between) ListGrants(ctx context.Context) (api.GrantList, error) {
	return b.now().ListGrants(ctx)
}

func (b *between) Records(ctx context.Context, q api.RecordQuery) (api.RecordList, error) {
	return b.now().Records(ctx, q)
}

func (b *between) EraseRecords(ctx context.Context, r api.EraseRecords) (api.ErasedRecords, error) {
	return b.now().EraseRecords(ctx, r)
}

func (b *between) Bundle(ctx context.Context, partner string) ([]byte, error) {
	return b.now().Bundle(ctx, partner)
}

func (b *between) InclusionProof(ctx context.Context, leaf [32]byte, waitSeconds int) ([]byte, error) {
	return b.now().InclusionProof(ctx, leaf, waitSeconds)
}

func (b *between) Checkpoint(ctx context.Context) ([]byte, error) {
	return b.now().Checkpoint(ctx)
}

func (b *between) ConsistencyProof(ctx context.Context, from, to int64) ([][32]byte, error) {
	return b.now().ConsistencyProof(ctx, from, to)
}

func (b *between) PublicEntries(ctx context.Context, from uint64) (api.PublicEntries, error) {
	return b.now().PublicEntries(ctx, from)
}

func (b *between) Policies(ctx context.Context) ([]api.Handoff, error) { return b.now().Policies(ctx) }

func (b *between) Completeness(ctx context.Context, r api.Completeness) (api.CompletenessProof, error) {
	return b.now().Completeness(ctx, r)
}
