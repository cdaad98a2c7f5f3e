package grant_test

import (
	"testing"

	"letterlock/chat"
	"letterlock/grant"
)

// TestMay goes through every answer, in the order in which they are given.
func TestMay(t *testing.T) {
	const now = 1000
	good := func() grant.Standing {
		return grant.Standing{Name: "Flimmer", Handle: "alice", State: grant.Live, Actions: chat.AllActions, Expiry: now + 1,
			Entry: &grant.Entry{Actions: chat.AllActions}}
	}
	for _, a := range []chat.Actions{chat.Send, chat.Read, chat.Delete} {
		if err := grant.May(good(), a, now); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	for _, c := range []struct {
		name   string
		spoil  func(*grant.Standing)
		action chat.Actions
		kind   chat.Kind
		says   string
	}{
		{"stopped", func(s *grant.Standing) { s.Stopped = true }, chat.Send, chat.Forbidden, "the agreement with Flimmer has ended"},
		{"stopped and expired", func(s *grant.Standing) { s.Stopped, s.Expiry = true, 0 }, chat.Send, chat.Forbidden, "the agreement with Flimmer has ended"},
		{"blocked", func(s *grant.Standing) { s.Blocked = true }, chat.Send, chat.Forbidden, "the account of alice is blocked by the operator of the server"},
		{"pending", func(s *grant.Standing) { s.State = grant.Pending }, chat.Send, chat.Forbidden, "the grant is not yet in its thread"},
		{"ended", func(s *grant.Standing) { s.State = grant.Ended }, chat.Send, chat.Forbidden, "alice has ended this permission"},
		{"void", func(s *grant.Standing) { s.State = grant.Void }, chat.Send, chat.Forbidden, "alice has ended this permission"},
		{"in no state", func(s *grant.Standing) { s.State = "" }, chat.Send, chat.Forbidden, "alice has ended this permission"},
		{"expired this moment", func(s *grant.Standing) { s.Expiry = now }, chat.Send, chat.Expired, "the permission of alice has expired"},
		{"not in the thread", func(s *grant.Standing) { s.Entry = nil }, chat.Send, chat.Forbidden, "the thread does not list this grant"},
		{"narrowed in the row", func(s *grant.Standing) { s.Actions = chat.Send | chat.Delete }, chat.Read, chat.Forbidden, "alice has not allowed read in this thread"},
		{"narrowed in the thread", func(s *grant.Standing) { s.Entry.Actions = chat.Read }, chat.Send, chat.Forbidden, "alice has not allowed send in this thread"},
		{"half of what is asked", func(s *grant.Standing) { s.Actions = chat.Read }, chat.Read | chat.Delete, chat.Forbidden,
			"alice has not allowed read,delete in this thread"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := good()
			c.spoil(&s)
			err := grant.May(s, c.action, now)
			if err == nil || err.Error() != c.says || chat.KindOf(err) != c.kind {
				t.Errorf("%v (%s), want %q (%s)", err, chat.KindOf(err), c.says, c.kind)
			}
		})
	}
}
