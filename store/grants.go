package store

import (
	"cmp"
	"fmt"
	"slices"

	"letterlock/chat"
)

// Partner is an organisation whose app may ask people for permission.
type Partner struct {
	ID            string
	Number        uint64 // of its newest agreement
	Stopped       int64  // ms; 0: active
	StoppedNumber uint64 // of the agreement that the operator's last stop ended; 0: none
}

// Agreement is one agreement of a partner.
type Agreement struct {
	Partner   string
	Number    uint64
	Agreement []byte   // countersigned (package grant)
	Hash      [32]byte // by which grants name it
	LeafHash  [32]byte // of its leaf in the ledger
	Accepted  int64    // ms
	Ended     int64    // ms; 0: in force
}

// Grant is a grant's row.
type Grant struct {
	Account      chat.AccountID
	ID           chat.GrantID
	Handle       string
	Device       chat.DeviceID // that signed it
	Partner      string
	Conversation chat.ConversationID
	Agreement    [32]byte // hash
	Hash         [32]byte // of Signed
	Signed       []byte
	Request      string // the consent request that it answers
	AgentKey     [32]byte
	Actions      chat.Actions // left after narrowing
	Expiry       int64        // ms
	Counter      uint64       // its place in the control chain
	State        string       // grant.State
	Reason       string       // why it ended
	Created      int64        // ms
	Changed      int64        // ms: into its state
	Leaf         Leaf
	JoinedSeq    uint64 // of the commit that added the leaf; 0: never
	Posted       int64  // counter of the last post; -1: none
	PostsUntil   int64  // us: the time that the posts so far have used up
	LinksUntil   int64  // us: the same for share links
}

// Leaf says whether a grant's agent is a leaf of its thread.
type Leaf uint8

// Whether a grant's agent is a leaf.
const (
	NoLeaf   Leaf = 0
	LeafIn   Leaf = 1
	LeafToGo Leaf = 2 // it is in, and has to go
)

// Post is a post that an agent put into a thread.
type Post struct {
	Conversation chat.ConversationID
	Message      chat.MessageID
	Grant        chat.GrantID
	Account      chat.AccountID // for whom
	Partner      string
	Seq          uint64
	Epoch        uint64
	At           int64
	TakenBack    uint64 // seq of the take-back; 0: stands
}

// Access is what a reading agent was served in one period: the entries First to Last, all of them.
type Access struct {
	Conversation chat.ConversationID
	Grant        chat.GrantID
	Period       int64
	Epoch        uint64 // of the last entry served
	First, Last  uint64
	Closed       AccessClosed
	CloseBy      int64  // ms: when the server closes it by its word; 0: the grant reads still
	Receipt      []byte // the agent's; empty: none
}

// AccessClosed says how an access period was closed.
type AccessClosed uint8

// How a period was closed.
const (
	AccessRunning       AccessClosed = 0
	AccessStated        AccessClosed = 1 // by the server's word
	AccessCountersigned AccessClosed = 2 // by the agent too
)

// AccessOpen is the open record of a period on one person's chain, as the agent sees it.
type AccessOpen struct {
	Account    chat.AccountID
	N          uint64 // order within the period, from 1
	Disclosure []byte
	Promise    []byte
}

// Partner reads a partner's row.
func (tx *Tx) Partner(id string) (p Partner, err error) {
	err = tx.one([]any{&p.ID, &p.Number, &p.Stopped, &p.StoppedNumber},
		`SELECT partner, number, stopped, stopped_number FROM partners WHERE partner = $1`, id)
	return p, err
}

// Partners lists every partner, by id.
func (tx *Tx) Partners() (partners []Partner, err error) {
	err = tx.list(func(scan func(...any) error) error {
		var p Partner
		err := scan(&p.ID, &p.Number, &p.Stopped, &p.StoppedNumber)
		partners = append(partners, p)
		return err
	}, `SELECT partner, number, stopped, stopped_number FROM partners`)
	slices.SortFunc(partners, func(a, b Partner) int { return cmp.Compare(a.ID, b.ID) }) // a database would sort text by its language
	return partners, err
}

// PutPartner stores a partner's row in the place of the one before.
func (tx *Tx) PutPartner(p Partner) error {
	_, err := tx.exec(`INSERT INTO partners (partner, number, stopped, stopped_number) VALUES ($1, $2, $3, $4)
		ON CONFLICT (partner) DO UPDATE SET number = excluded.number, stopped = excluded.stopped, stopped_number = excluded.stopped_number`,
		p.ID, int64(p.Number), p.Stopped, int64(p.StoppedNumber))
	return err
}

// AddAgreement stores an agreement; ErrExists if the partner has one of that number.
func (tx *Tx) AddAgreement(a Agreement) error {
	return tx.insert(`INSERT INTO agreements (partner, number, agreement, hash, leaf_hash, accepted, ended)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
		a.Partner, int64(a.Number), a.Agreement, a.Hash[:], a.LeafHash[:], a.Accepted, a.Ended)
}

// EndAgreement notes when an agreement ended. Once is enough: again changes nothing.
func (tx *Tx) EndAgreement(partner string, number uint64, at int64) error {
	_, err := tx.exec(`UPDATE agreements SET ended = $1 WHERE partner = $2 AND number = $3 AND ended = 0`, at, partner, int64(number))
	return err
}

const agreementColumns = `partner, number, agreement, hash, leaf_hash, accepted, ended`

func scanAgreement(scan func(...any) error) (a Agreement, err error) {
	var hash, leaf []byte
	err = scan(&a.Partner, &a.Number, &a.Agreement, &hash, &leaf, &a.Accepted, &a.Ended)
	if err == nil && (copy(a.Hash[:], hash) != len(a.Hash) || copy(a.LeafHash[:], leaf) != len(a.LeafHash)) {
		err = fmt.Errorf("store: agreement row of %s is damaged", a.Partner)
	}
	return a, err
}

// Agreement reads one agreement.
func (tx *Tx) Agreement(partner string, number uint64) (Agreement, error) {
	return scanAgreement(func(dst ...any) error {
		return tx.one(dst, `SELECT `+agreementColumns+` FROM agreements WHERE partner = $1 AND number = $2`, partner, int64(number))
	})
}

// Agreements lists a partner's agreements, by number.
func (tx *Tx) Agreements(partner string) (list []Agreement, err error) {
	return list, tx.list(func(scan func(...any) error) error {
		a, err := scanAgreement(scan)
		list = append(list, a)
		return err
	}, `SELECT `+agreementColumns+` FROM agreements WHERE partner = $1 ORDER BY number`, partner)
}

const grantColumns = `account, grant_id, handle, device, partner, conversation, agreement, hash, signed, request, agent_key,
	actions, expiry, counter, state, reason, created, changed, leaf, joined_seq, posted, posts_until, links_until`

func scanGrant(scan func(...any) error) (g Grant, err error) {
	var account, id, device, conversation, agreement, hash, key []byte
	var actions int64
	err = scan(&account, &id, &g.Handle, &device, &g.Partner, &conversation, &agreement, &hash, &g.Signed, &g.Request, &key,
		&actions, &g.Expiry, &g.Counter, &g.State, &g.Reason, &g.Created, &g.Changed, &g.Leaf, &g.JoinedSeq, &g.Posted, &g.PostsUntil, &g.LinksUntil)
	if err != nil {
		return g, err
	}
	g.Actions = chat.Actions(actions)
	whole := copy(g.Account[:], account) == len(g.Account) && copy(g.ID[:], id) == len(g.ID) && copy(g.Device[:], device) == len(g.Device) &&
		copy(g.Conversation[:], conversation) == len(g.Conversation) && copy(g.Agreement[:], agreement) == len(g.Agreement) &&
		copy(g.Hash[:], hash) == len(g.Hash) && copy(g.AgentKey[:], key) == len(g.AgentKey)
	if !whole {
		return g, fmt.Errorf("store: grant row %x is damaged", id)
	}
	return g, nil
}

// AddGrant stores a new grant; ErrExists if its id was ever taken, by anybody.
func (tx *Tx) AddGrant(g Grant) error {
	if err := tx.insert(`INSERT INTO grant_index (grant_id, account) VALUES ($1, $2) ON CONFLICT DO NOTHING`, g.ID[:], g.Account[:]); err != nil {
		return err
	}
	return tx.insert(`INSERT INTO grants (`+grantColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
		$12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23) ON CONFLICT DO NOTHING`,
		g.Account[:], g.ID[:], g.Handle, g.Device[:], g.Partner, g.Conversation[:], g.Agreement[:], g.Hash[:], g.Signed, g.Request, g.AgentKey[:],
		int64(g.Actions), g.Expiry, int64(g.Counter), g.State, g.Reason, g.Created, g.Changed, int64(g.Leaf), int64(g.JoinedSeq), g.Posted, g.PostsUntil, g.LinksUntil)
}

// ChangeGrant stores what may change in a grant's row: actions, state, leaf, post counter, rates.
func (tx *Tx) ChangeGrant(g Grant) error {
	return tx.change(`UPDATE grants SET actions = $1, state = $2, reason = $3, changed = $4, leaf = $5, joined_seq = $6, posted = $7,
		posts_until = $8, links_until = $9 WHERE account = $10 AND grant_id = $11`,
		int64(g.Actions), g.State, g.Reason, g.Changed, int64(g.Leaf), int64(g.JoinedSeq), g.Posted, g.PostsUntil, g.LinksUntil, g.Account[:], g.ID[:])
}

// EraseGrant forgets what was signed of a grant. That it was, and how it ended, stays.
func (tx *Tx) EraseGrant(a chat.AccountID, id chat.GrantID) error {
	return tx.change(`UPDATE grants SET signed = $1 WHERE account = $2 AND grant_id = $3`, []byte{}, a[:], id[:])
}

// GrantOf reads an account's grant.
func (tx *Tx) GrantOf(a chat.AccountID, id chat.GrantID) (Grant, error) {
	return scanGrant(func(dst ...any) error {
		return tx.one(dst, `SELECT `+grantColumns+` FROM grants WHERE account = $1 AND grant_id = $2`, a[:], id[:])
	})
}

// Grant reads a grant by its id alone.
func (tx *Tx) Grant(id chat.GrantID) (Grant, error) {
	var account []byte
	if err := tx.one([]any{&account}, `SELECT account FROM grant_index WHERE grant_id = $1`, id[:]); err != nil {
		return Grant{}, err
	}
	var a chat.AccountID
	if copy(a[:], account) != len(a) {
		return Grant{}, fmt.Errorf("store: grant index row %x is damaged", id[:])
	}
	return tx.GrantOf(a, id)
}

// GrantsOf lists an account's grants, oldest first.
func (tx *Tx) GrantsOf(a chat.AccountID) ([]Grant, error) {
	return tx.grants(`SELECT `+grantColumns+` FROM grants WHERE account = $1 ORDER BY created, grant_id`, a[:])
}

// GrantsIn lists the grants of a conversation, by id.
func (tx *Tx) GrantsIn(c chat.ConversationID) ([]Grant, error) {
	return tx.grants(`SELECT `+grantColumns+` FROM grants WHERE conversation = $1 ORDER BY grant_id`, c[:])
}

// CountGrants counts a partner's grants in a state.
func (tx *Tx) CountGrants(partner, state string) (n int, err error) {
	err = tx.one([]any{&n}, `SELECT COUNT(*) FROM grants WHERE partner = $1 AND state = $2`, partner, state)
	return n, err
}

// GrantsUnder lists a partner's grants in a state that stand on the agreement with that hash, at most limit.
func (tx *Tx) GrantsUnder(partner, state string, agreement [32]byte, limit int) ([]Grant, error) {
	return tx.grants(`SELECT `+grantColumns+` FROM grants WHERE partner = $1 AND state = $2 AND agreement = $3 ORDER BY grant_id LIMIT $4`,
		partner, state, agreement[:], limit)
}

// GrantsExpired lists the grants in a state whose time is over, at most limit.
func (tx *Tx) GrantsExpired(state string, now int64, limit int) ([]Grant, error) {
	return tx.grants(`SELECT `+grantColumns+` FROM grants WHERE state = $1 AND expiry <= $2 ORDER BY expiry LIMIT $3`, state, now, limit)
}

// GrantsWaiting lists the grants that have been in a state since before a time, at most limit.
func (tx *Tx) GrantsWaiting(state string, since int64, limit int) ([]Grant, error) {
	return tx.grants(`SELECT `+grantColumns+` FROM grants WHERE state = $1 AND changed <= $2 ORDER BY changed LIMIT $3`, state, since, limit)
}

// GrantsToRemove lists the grants whose agent is a leaf that has to go, after the given id, at most limit.
func (tx *Tx) GrantsToRemove(after chat.GrantID, limit int) ([]Grant, error) {
	return tx.grants(`SELECT `+grantColumns+` FROM grants WHERE leaf = $1 AND grant_id > $2 ORDER BY grant_id LIMIT $3`, int64(LeafToGo), after[:], limit)
}

func (tx *Tx) grants(query string, args ...any) (list []Grant, err error) {
	return list, tx.list(func(scan func(...any) error) error {
		g, err := scanGrant(scan)
		list = append(list, g)
		return err
	}, query, args...)
}

// AddPost notes a post; ErrExists if the conversation has one with that message id.
func (tx *Tx) AddPost(p Post) error {
	return tx.insert(`INSERT INTO posts (conversation, message, grant_id, account, partner, seq, epoch, at, taken_back)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
		p.Conversation[:], p.Message[:], p.Grant[:], p.Account[:], p.Partner, int64(p.Seq), int64(p.Epoch), p.At, int64(p.TakenBack))
}

// Post reads a post by its message id.
func (tx *Tx) Post(c chat.ConversationID, m chat.MessageID) (Post, error) {
	p := Post{Conversation: c, Message: m}
	var grant, account []byte
	err := tx.one([]any{&grant, &account, &p.Partner, &p.Seq, &p.Epoch, &p.At, &p.TakenBack},
		`SELECT grant_id, account, partner, seq, epoch, at, taken_back FROM posts WHERE conversation = $1 AND message = $2`, c[:], m[:])
	if err == nil && (copy(p.Grant[:], grant) != len(p.Grant) || copy(p.Account[:], account) != len(p.Account)) {
		err = fmt.Errorf("store: post row %x is damaged", m[:])
	}
	return p, err
}

// TakeBackPost notes the take-back of a post.
func (tx *Tx) TakeBackPost(c chat.ConversationID, m chat.MessageID, seq uint64) error {
	return tx.change(`UPDATE posts SET taken_back = $1 WHERE conversation = $2 AND message = $3 AND taken_back = 0`, int64(seq), c[:], m[:])
}

// PutAccess stores a period in the place of what was known of it.
func (tx *Tx) PutAccess(a Access) error {
	_, err := tx.exec(`INSERT INTO access_periods (`+accessColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (conversation, grant_id, period) DO UPDATE SET epoch = excluded.epoch, first_seq = excluded.first_seq,
		last_seq = excluded.last_seq, closed = excluded.closed, close_by = excluded.close_by, receipt = excluded.receipt`,
		a.Conversation[:], a.Grant[:], a.Period, int64(a.Epoch), int64(a.First), int64(a.Last), int64(a.Closed), a.CloseBy, notNull(a.Receipt))
	return err
}

const accessColumns = `conversation, grant_id, period, epoch, first_seq, last_seq, closed, close_by, receipt`

func scanAccess(scan func(...any) error) (a Access, err error) {
	var conversation, grant []byte
	err = scan(&conversation, &grant, &a.Period, &a.Epoch, &a.First, &a.Last, &a.Closed, &a.CloseBy, &a.Receipt)
	if err == nil && (copy(a.Conversation[:], conversation) != len(a.Conversation) || copy(a.Grant[:], grant) != len(a.Grant)) {
		err = fmt.Errorf("store: access row of grant %x is damaged", grant)
	}
	return a, err
}

// Access reads one period.
func (tx *Tx) Access(c chat.ConversationID, g chat.GrantID, period int64) (Access, error) {
	return scanAccess(func(dst ...any) error {
		return tx.one(dst, `SELECT `+accessColumns+` FROM access_periods WHERE conversation = $1 AND grant_id = $2 AND period = $3`, c[:], g[:], period)
	})
}

// AccessesRunning lists the periods of a grant that nobody has closed, oldest first, at most limit.
func (tx *Tx) AccessesRunning(c chat.ConversationID, g chat.GrantID, limit int) ([]Access, error) {
	return tx.accesses(`SELECT `+accessColumns+` FROM access_periods WHERE conversation = $1 AND grant_id = $2 AND closed = 0 ORDER BY period LIMIT $3`,
		c[:], g[:], limit)
}

// AccessesDue lists the periods that the server has to close now, at most limit.
func (tx *Tx) AccessesDue(now int64, limit int) ([]Access, error) {
	return tx.accesses(`SELECT `+accessColumns+` FROM access_periods WHERE closed = 0 AND close_by > 0 AND close_by <= $1 ORDER BY close_by LIMIT $2`,
		now, limit)
}

// CloseAccessesBy notes when the server closes the periods of a grant that nobody has closed.
func (tx *Tx) CloseAccessesBy(c chat.ConversationID, g chat.GrantID, at int64) error {
	_, err := tx.exec(`UPDATE access_periods SET close_by = $1 WHERE conversation = $2 AND grant_id = $3 AND closed = 0`, at, c[:], g[:])
	return err
}

func (tx *Tx) accesses(query string, args ...any) (list []Access, err error) {
	return list, tx.list(func(scan func(...any) error) error {
		a, err := scanAccess(scan)
		list = append(list, a)
		return err
	}, query, args...)
}

// AddAccessOpen stores the open record of one person; ErrExists if the period has one.
func (tx *Tx) AddAccessOpen(c chat.ConversationID, g chat.GrantID, period int64, o AccessOpen) error {
	return tx.insert(`INSERT INTO access_opens (conversation, grant_id, period, account, n, disclosure, promise)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
		c[:], g[:], period, o.Account[:], int64(o.N), o.Disclosure, o.Promise)
}

// AccessOpens lists the open records of a period, in order.
func (tx *Tx) AccessOpens(c chat.ConversationID, g chat.GrantID, period int64) (opens []AccessOpen, err error) {
	return opens, tx.list(func(scan func(...any) error) error {
		var o AccessOpen
		var account []byte
		err := scan(&account, &o.N, &o.Disclosure, &o.Promise)
		if err == nil && copy(o.Account[:], account) != len(o.Account) {
			err = fmt.Errorf("store: open row of grant %x is damaged", g[:])
		}
		opens = append(opens, o)
		return err
	}, `SELECT account, n, disclosure, promise FROM access_opens WHERE conversation = $1 AND grant_id = $2 AND period = $3 ORDER BY n`,
		c[:], g[:], period)
}

// EraseAccessOpen deletes the open record of one person; one that is not there is no error.
func (tx *Tx) EraseAccessOpen(c chat.ConversationID, g chat.GrantID, period int64, a chat.AccountID) error {
	_, err := tx.exec(`DELETE FROM access_opens WHERE conversation = $1 AND grant_id = $2 AND period = $3 AND account = $4`, c[:], g[:], period, a[:])
	return err
}

// SetFriendHandle gives a friend the handle fresh for this account and partner, unless there is one; then that one stays.
func (tx *Tx) SetFriendHandle(a chat.AccountID, partner string, friend chat.AccountID, fresh [16]byte) error {
	_, err := tx.exec(`INSERT INTO friend_handles (account, partner, friend, handle) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		a[:], partner, friend[:], fresh[:])
	return err
}

// FriendHandle reads what a partner knows a friend of an account by.
func (tx *Tx) FriendHandle(a chat.AccountID, partner string, friend chat.AccountID) (handle [16]byte, err error) {
	var b []byte
	err = tx.one([]any{&b}, `SELECT handle FROM friend_handles WHERE account = $1 AND partner = $2 AND friend = $3`, a[:], partner, friend[:])
	copy(handle[:], b)
	return handle, err
}
