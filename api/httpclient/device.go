package httpclient

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"letterlock/api"
	"letterlock/chat"
)

// Device makes the calls of one device of a person: api.Accounts, api.Conversations and api.Permission. It signs in by itself. It is
// safe for concurrent use.
type Device struct{ *conn }

var (
	_ api.Accounts      = (*Device)(nil)
	_ api.Conversations = (*Device)(nil)
	_ api.Permission    = (*Device)(nil)
	_ api.PublicLog     = (*Device)(nil)
)

// NewDevice makes the client of a device with its key. who may be of an account that is yet to be signed up; for one that has no
// device in the key chain yet (recovery) it is zero, and only those calls work that need no session. session is a token of before, or
// empty.
func NewDevice(o Options, key ed25519.PrivateKey, who api.SignIn, session string) (*Device, error) {
	c, err := newConn(o, key)
	if err != nil {
		return nil, err
	}
	d := &Device{c}
	c.tokens = &signIn{device: d, who: who, current: session}
	return d, nil
}

// Session is the present token, for the next start of the program; empty where there is none. Without the key it is worth nothing.
func (d *Device) Session() string {
	s := d.tokens.(*signIn)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// signIn holds a session and opens the next one.
type signIn struct {
	device *Device
	who    api.SignIn

	mu      sync.Mutex // held while signing in: one does, the others wait for its token
	current string
}

func (s *signIn) token(ctx context.Context, old string) (string, error) {
	if s.who.Account.IsZero() {
		return "", nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != "" && s.current != old {
		return s.current, nil
	}
	session, err := s.device.SignIn(ctx, s.who)
	if err != nil {
		return "", err
	}
	s.current = session.Token
	return s.current, nil
}

// Server asks who the server is.
func (d *Device) Server(ctx context.Context) (out api.Server, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: "/.well-known/letterlock", out: &out, open: true})
	return out, err
}

// SignUp takes a handle.
func (d *Device) SignUp(ctx context.Context, r api.SignUp) (out api.SignedUp, err error) {
	err = d.do(ctx, call{method: http.MethodPost, path: "/v1/accounts", in: r, out: &out, open: true})
	return out, err
}

// SignIn opens a session. A refused clock is corrected once.
func (d *Device) SignIn(ctx context.Context, r api.SignIn) (out api.Session, err error) {
	err = d.do(ctx, call{method: http.MethodPost, path: "/v1/sessions", in: r, out: &out, open: true})
	return out, err
}

// AccountByHandle fetches an account's key chain.
func (d *Device) AccountByHandle(ctx context.Context, handle string) (out api.Account, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: "/v1/accounts/" + url.PathEscape(handle), out: &out})
	return out, err
}

// AccountByID fetches an account's key chain.
func (d *Device) AccountByID(ctx context.Context, id chat.AccountID) (out api.Account, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: "/v1/accounts/by-id/" + id.String(), out: &out})
	return out, err
}

// AppendEntry adds an entry to one's own key chain.
func (d *Device) AppendEntry(ctx context.Context, r api.AppendEntry) error {
	return d.do(ctx, call{method: http.MethodPost, path: "/v1/chain", in: r})
}

// PutKeyPackages stores the device's own KeyPackages.
func (d *Device) PutKeyPackages(ctx context.Context, r api.KeyPackages) error {
	return d.do(ctx, call{method: http.MethodPut, path: "/v1/key-packages", in: r})
}

// CountKeyPackages asks how many are left.
func (d *Device) CountKeyPackages(ctx context.Context) (out api.KeyPackageCount, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: "/v1/key-packages", out: &out})
	return out, err
}

// ClaimKeyPackages takes one KeyPackage of each device of an account.
func (d *Device) ClaimKeyPackages(ctx context.Context, r api.ClaimKeyPackages) (out api.ClaimedKeyPackages, err error) {
	err = d.do(ctx, call{method: http.MethodPost, path: "/v1/key-packages/claim", in: r, out: &out})
	return out, err
}

// ListFriends fetches friends and requests.
func (d *Device) ListFriends(ctx context.Context) (out api.FriendList, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: "/v1/friends", out: &out})
	return out, err
}

// AddFriend asks, or accepts.
func (d *Device) AddFriend(ctx context.Context, handle string) (out api.Friend, err error) {
	err = d.do(ctx, call{method: http.MethodPut, path: "/v1/friends/" + url.PathEscape(handle), out: &out})
	return out, err
}

// RemoveFriend declines, takes back or ends.
func (d *Device) RemoveFriend(ctx context.Context, handle string) error {
	return d.do(ctx, call{method: http.MethodDelete, path: "/v1/friends/" + url.PathEscape(handle)})
}

// Found founds a conversation.
func (d *Device) Found(ctx context.Context, r api.NewConversation) (out api.Conversation, err error) {
	err = d.do(ctx, call{method: http.MethodPost, path: "/v1/conversations", in: r, out: &out})
	return out, err
}

// ListConversations fetches the account's conversations.
func (d *Device) ListConversations(ctx context.Context) (out api.ConversationList, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: "/v1/conversations", out: &out})
	return out, err
}

// GetConversation fetches one conversation.
func (d *Device) GetConversation(ctx context.Context, c chat.ConversationID) (out api.Conversation, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: conversation(c, ""), out: &out})
	return out, err
}

// Commit hands in a commit.
func (d *Device) Commit(ctx context.Context, c chat.ConversationID, r api.Commit) (out api.Accepted, err error) {
	err = d.do(ctx, call{method: http.MethodPost, path: conversation(c, "/commits"), in: r, out: &out})
	return out, err
}

// SendMessage hands in a message.
func (d *Device) SendMessage(ctx context.Context, c chat.ConversationID, r api.Message) (out api.Accepted, err error) {
	err = d.do(ctx, call{method: http.MethodPost, path: conversation(c, "/messages"), in: r, out: &out})
	return out, err
}

// Log reads a conversation's log, waiting for news if there are none.
func (d *Device) Log(ctx context.Context, c chat.ConversationID, after uint64, limit int, waitSeconds int) (out api.Page, err error) {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}, "limit": {strconv.Itoa(limit)}, "wait": {strconv.Itoa(waitSeconds)}}
	err = d.do(ctx, call{method: http.MethodGet, path: conversation(c, "/log"), query: q, out: &out, wait: seconds(waitSeconds)})
	return out, err
}

// DeleteMessage replaces an entry by its tombstone.
func (d *Device) DeleteMessage(ctx context.Context, c chat.ConversationID, seq uint64) error {
	return d.do(ctx, call{method: http.MethodDelete, path: conversation(c, "/log/"+strconv.FormatUint(seq, 10))})
}

// Welcomes reads the device's mailbox, waiting for something if it is empty.
func (d *Device) Welcomes(ctx context.Context, waitSeconds int) (out api.Mailbox, err error) {
	q := url.Values{"wait": {strconv.Itoa(waitSeconds)}}
	err = d.do(ctx, call{method: http.MethodGet, path: "/v1/welcomes", query: q, out: &out, wait: seconds(waitSeconds)})
	return out, err
}

// DeleteWelcome takes a Welcome out of the mailbox.
func (d *Device) DeleteWelcome(ctx context.Context, id chat.MessageID) error {
	return d.do(ctx, call{method: http.MethodDelete, path: "/v1/welcomes/" + id.String()})
}

// OwnCount asks how many messages of this device the server took in the current epoch.
func (d *Device) OwnCount(ctx context.Context, c chat.ConversationID) (out api.OwnCount, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: conversation(c, "/own-count"), out: &out})
	return out, err
}

func conversation(c chat.ConversationID, rest string) string {
	return "/v1/conversations/" + c.String() + rest
}

// ListPartners fetches every partner.
func (d *Device) ListPartners(ctx context.Context) (out api.PartnerList, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: "/v1/partners", out: &out, open: true})
	return out, err
}

// GetConsent fetches what a partner asks for.
func (d *Device) GetConsent(ctx context.Context, request string) (out api.ConsentRequest, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: consent(request, ""), out: &out})
	return out, err
}

// PutGrant hands in a control entry.
func (d *Device) PutGrant(ctx context.Context, r api.PutGrant) (out api.Record, err error) {
	err = d.do(ctx, call{method: http.MethodPost, path: "/v1/grants", in: r, out: &out})
	return out, err
}

// FinishConsent asks for the code, after the commit.
func (d *Device) FinishConsent(ctx context.Context, request string) (out api.Redirect, err error) {
	err = d.do(ctx, call{method: http.MethodPost, path: consent(request, "/finish"), out: &out})
	return out, err
}

// RefuseConsent says no.
func (d *Device) RefuseConsent(ctx context.Context, request string) (out api.Redirect, err error) {
	err = d.do(ctx, call{method: http.MethodPost, path: consent(request, "/refuse"), out: &out})
	return out, err
}

func consent(request, rest string) string { return "/v1/consents/" + url.PathEscape(request) + rest }

// ListGrants fetches the account's grants.
func (d *Device) ListGrants(ctx context.Context) (out api.GrantList, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: "/v1/grants", out: &out})
	return out, err
}

// Records fetches a part of the account's history.
func (d *Device) Records(ctx context.Context, r api.RecordQuery) (out api.RecordList, err error) {
	q := url.Values{"partner": {r.Partner}, "chain": {r.Chain}, "from": {strconv.FormatUint(r.From, 10)}, "limit": {strconv.Itoa(r.Limit)}}
	err = d.do(ctx, call{method: http.MethodGet, path: "/v1/records", query: q, out: &out})
	return out, err
}

// InclusionProof fetches the C2SP tlog-proof of a leaf, waiting until it is in the log.
func (d *Device) InclusionProof(ctx context.Context, leaf [32]byte, waitSeconds int) ([]byte, error) {
	return d.log(ctx, "/log/proof/"+hex.EncodeToString(leaf[:]), url.Values{"wait": {strconv.Itoa(waitSeconds)}}, waitSeconds)
}

// Checkpoint fetches the log's newest checkpoint.
func (d *Device) Checkpoint(ctx context.Context) ([]byte, error) {
	return d.log(ctx, "/log/checkpoint", nil, 0)
}

// ConsistencyProof fetches the hashes that lead from one size of the log to another.
func (d *Device) ConsistencyProof(ctx context.Context, from, to int64) ([][32]byte, error) {
	q := url.Values{"from": {strconv.FormatInt(from, 10)}, "to": {strconv.FormatInt(to, 10)}}
	var raw [][]byte
	if err := d.do(ctx, call{method: http.MethodGet, path: "/log/consistency", query: q, out: &raw, open: true}); err != nil {
		return nil, err
	}
	proof := make([][32]byte, len(raw))
	for i, h := range raw {
		if copy(proof[i][:], h) != 32 || len(h) != 32 {
			return nil, chat.Errorf(chat.Incompatible, "the server's consistency proof is malformed")
		}
	}
	return proof, nil
}

// PublicEntries fetches public entries of the log from a number on.
func (d *Device) PublicEntries(ctx context.Context, from uint64) (out api.PublicEntries, err error) {
	q := url.Values{"from": {strconv.FormatUint(from, 10)}}
	err = d.do(ctx, call{method: http.MethodGet, path: "/log/public", query: q, out: &out, open: true})
	return out, err
}

// Policies fetches the witness policies that were ever in force, oldest first.
func (d *Device) Policies(ctx context.Context) (out []api.Handoff, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: "/log/policies", out: &out, open: true})
	return out, err
}

// log reads from the public log, which needs no token.
func (d *Device) log(ctx context.Context, path string, q url.Values, waitSeconds int) (text []byte, err error) {
	err = d.do(ctx, call{method: http.MethodGet, path: path, query: q, out: &text, open: true, wait: seconds(waitSeconds)})
	return text, err
}

// Completeness fetches the proofs that chains of the account have no further record.
func (d *Device) Completeness(ctx context.Context, r api.Completeness) (out api.CompletenessProof, err error) {
	err = d.do(ctx, call{method: http.MethodPost, path: "/v1/completeness", in: r, out: &out})
	return out, err
}

// EraseRecords deletes the contents of records of the account.
func (d *Device) EraseRecords(ctx context.Context, r api.EraseRecords) (out api.ErasedRecords, err error) {
	err = d.do(ctx, call{method: http.MethodPost, path: "/v1/records/erase", in: r, out: &out})
	return out, err
}

// Bundle fetches everything a stranger needs to check the account's history with a partner.
func (d *Device) Bundle(ctx context.Context, partner string) ([]byte, error) {
	var data []byte
	err := d.do(ctx, call{method: http.MethodGet, path: "/v1/bundle", query: url.Values{"partner": {partner}}, out: &data})
	return data, err
}
