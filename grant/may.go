package grant

import (
	"letterlock/chat"
)

// State is where a grant stands on the server. It only moves down this list.
type State string

// The states of a grant.
const (
	Pending State = "pending" // signed and stored, not yet in its thread
	Live    State = "live"    // in its thread
	Ended   State = "ended"   // revoked, replaced, expired or stopped
	Void    State = "void"    // never entered its thread in time
)

// PendingFor is how long a grant may wait for its commit, in milliseconds.
const PendingFor = 10 * 60 * 1000

// Standing is all that decides a partner's call: the grant's row, its thread's entry, and the partner's agreement, read in the transaction that acts.
type Standing struct {
	Name    string // the partner's name, for the answer
	Handle  string // whose grant it is, for the answer
	State   State
	Actions chat.Actions // as the row has them
	Expiry  int64
	Entry   *Entry // in the thread's current epoch; nil if the epoch does not list it
	Stopped bool   // the partner was stopped by the operator, or its agreement ended
	Blocked bool   // the person was shut out by the operator
}

// May decides whether an agent may do one thing now. A refusal says why, in a sentence that the partner may show.
func May(s Standing, action chat.Actions, now int64) error {
	switch {
	case s.Stopped:
		return chat.Errorf(chat.Forbidden, "the agreement with %s has ended", s.Name)
	case s.Blocked:
		return chat.Errorf(chat.Forbidden, "the account of %s is blocked by the operator of the server", s.Handle)
	case s.State == Pending:
		return chat.Errorf(chat.Forbidden, "the grant is not yet in its thread")
	case s.State != Live:
		return chat.Errorf(chat.Forbidden, "%s has ended this permission", s.Handle)
	case now >= s.Expiry:
		return chat.Errorf(chat.Expired, "the permission of %s has expired", s.Handle)
	case s.Entry == nil:
		return chat.Errorf(chat.Forbidden, "the thread does not list this grant")
	case !s.Actions.Has(action) || !s.Entry.Actions.Has(action):
		return chat.Errorf(chat.Forbidden, "%s has not allowed %s in this thread", s.Handle, action)
	}
	return nil
}
