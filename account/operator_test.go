package account

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/store/storetest"
)

func (w *world) invite(uses int64) api.Invite {
	w.t.Helper()
	i, err := w.s.CreateInvite(w.t.Context(), api.NewInvite{Uses: uses, ExpiresIn: 3600})
	if err != nil || len(i.Code) < 26 {
		w.t.Fatalf("%+v %v", i, err)
	}
	return i
}

func (d *device) signUp(code string) error {
	_, err := d.s.SignUp(context.Background(), api.SignUp{Entry: d.entry, Invite: code})
	return err
}

func TestRegistration(t *testing.T) {
	dir := t.TempDir()
	w := worldOn(t, storetest.File(t, filepath.Join(dir, "test.db"))(t))
	w.s.Registration = ByInvite
	once, twice := w.invite(1), w.invite(2)
	alice := w.person("alice")
	none := alice.signUp("")
	want(t, "no code", none, chat.Forbidden)
	wrong := alice.signUp(strings.Repeat("A", 26))
	want(t, "a wrong code", wrong, chat.Forbidden)
	if _, err := w.s.AccountByHandle(t.Context(), "alice"); !chat.Is(err, chat.NotFound) {
		t.Errorf("a refused sign-up left %v", err)
	}
	if err := alice.signUp(" " + strings.ToLower(once.Code) + "\n"); err != nil {
		t.Fatalf("the code as somebody pastes it: %v", err)
	}
	if err := alice.signUp(once.Code); err != nil {
		t.Errorf("the same again, as after a lost answer: %v", err)
	}
	used := w.person("bob").signUp(once.Code)
	want(t, "a used code", used, chat.Forbidden)
	if used.Error() != wrong.Error() {
		t.Errorf("%q tells a used code from a wrong one: %q", used, wrong)
	}
	for _, handle := range []string{"bob", "carol"} {
		if err := w.person(handle).signUp(twice.Code); err != nil {
			t.Errorf("%s: %v", handle, err)
		}
	}
	want(t, "a taken handle", w.person("bob").signUp(w.invite(1).Code), chat.Exists)

	revoked := w.invite(5)
	if err := w.s.RevokeInvite(t.Context(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	want(t, "a revoked code", w.person("dora").signUp(revoked.Code), chat.Forbidden)
	want(t, "no such invitation", w.s.RevokeInvite(t.Context(), revoked.ID), chat.NotFound)
	old := w.invite(1)
	w.pass(time.Hour)
	want(t, "an old code", w.person("dora").signUp(old.Code), chat.Forbidden)

	list, err := w.s.ListInvites(t.Context())
	if err != nil || len(list.Invites) != 4 {
		t.Fatalf("%+v %v", list, err)
	}
	for _, i := range list.Invites {
		if i.Code != "" || i.ID == twice.ID && i.Used != 2 || i.ID == once.ID && i.Used != 1 {
			t.Errorf("%+v", i)
		}
	}
	if files := filesOf(t, dir); bytes.Contains(files, []byte(twice.Code)) {
		t.Error("a code stands in the database")
	}
	w.pass(2 * time.Hour)
	if err := w.s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, err := w.s.ListInvites(t.Context()); err != nil || len(list.Invites) != 0 {
		t.Errorf("after the sweep: %+v %v", list, err)
	}

	w.s.Registration = Closed
	want(t, "closed", w.person("dora").signUp(""), chat.Forbidden)
	if err := alice.signUp(""); err != nil {
		t.Errorf("the answer to a sign-up of before: %v", err)
	}
}

func TestInviteRefuses(t *testing.T) {
	w := newWorld(t)
	for _, bad := range []api.NewInvite{{}, {Uses: 1}, {Uses: 1, ExpiresIn: -1}, {Uses: 0, ExpiresIn: 60}, {Uses: -1, ExpiresIn: 60}, {Uses: maxInviteUses + 1, ExpiresIn: 60},
		{Uses: 1, ExpiresIn: 1 << 62}} {
		_, err := w.s.CreateInvite(t.Context(), bad)
		want(t, "an invitation", err, chat.Invalid)
	}
	if r, err := ParseRegistration(""); err != nil || r != Open {
		t.Errorf("%q %v", r, err)
	}
	_, err := ParseRegistration("invites")
	want(t, "a way to register", err, chat.Invalid)
}

// TestOneInviteOnePerson: thirty people come with one code of one use at the same moment.
func TestOneInviteOnePerson(t *testing.T) {
	w := newWorld(t)
	w.s.Registration = ByInvite
	code := w.invite(1).Code
	var people []*device
	for _, c := range "abcdefghijklmnopqrstuvwxyz0123" {
		people = append(people, w.person(string(c)))
	}
	if wins := atOnce(len(people), func(i int) error { return people[i].signUp(code) }); wins != 1 {
		t.Fatalf("%d people came in", wins)
	}
}

func TestBlock(t *testing.T) {
	w := newWorld(t)
	var heard []bool
	w.s.Hooks.Blocked = func(_ chat.AccountID, blocked bool) { heard = append(heard, blocked) }
	alice, bob := w.signedUp("alice"), w.signedUp("bob")
	alice.befriend(bob)
	bob.put(bob.keyPackage(false))
	token := bob.mustSignIn()
	if _, err := bob.use(token); err != nil {
		t.Fatal(err)
	}
	if err := w.s.BlockAccount(t.Context(), "bob", api.BlockAccount{Reason: "sent advertisements"}); err != nil {
		t.Fatal(err)
	}
	_, err := bob.use(token)
	want(t, "his session", err, chat.Unauthenticated)
	_, err = bob.signIn()
	want(t, "a new session", err, chat.Forbidden)
	if err != nil && !strings.Contains(err.Error(), "sent advertisements") {
		t.Errorf("he reads %v", err)
	}
	stranger := w.person("stranger")
	stranger.caller = bob.caller
	_, err = stranger.signIn()
	want(t, "a stranger who asks", err, chat.Unauthenticated)
	_, err = w.s.ClaimKeyPackages(alice.ctx(), api.ClaimKeyPackages{Account: bob.caller.Account})
	want(t, "adding him", err, chat.Forbidden)
	if err != nil && strings.Contains(err.Error(), "advertisements") {
		t.Errorf("others read %v", err)
	}
	carol := w.signedUp("carol")
	_, err = w.s.AddFriend(carol.ctx(), "bob")
	want(t, "asking him", err, chat.Forbidden)
	if a, err := w.s.AccountByHandle(t.Context(), "bob"); err != nil || len(a.Chain) != 1 {
		t.Errorf("his key chain, with which others judge what he wrote: %v", err)
	}
	if show, err := w.s.ShowAccount(t.Context(), "bob"); err != nil || show.Blocked == 0 || show.Reason != "sent advertisements" || show.Devices != 1 {
		t.Errorf("%+v %v", show, err)
	}
	if list, err := w.s.ListBlocked(t.Context()); err != nil || len(list.Accounts) != 1 || list.Accounts[0].Handle != "bob" {
		t.Errorf("%+v %v", list, err)
	}
	for range 2 { // again changes nothing
		if err := w.s.UnblockAccount(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := bob.use(bob.mustSignIn()); err != nil {
		t.Errorf("let in again: %v", err)
	}
	if claimed, err := w.s.ClaimKeyPackages(alice.ctx(), api.ClaimKeyPackages{Account: bob.caller.Account}); err != nil || len(claimed.Packages) != 1 {
		t.Errorf("%+v %v", claimed, err)
	}
	if len(heard) != 3 || !heard[0] || heard[1] {
		t.Errorf("the hook heard %v", heard)
	}
	want(t, "nobody", w.s.BlockAccount(t.Context(), "nobody", api.BlockAccount{}), chat.NotFound)
	want(t, "a long reason", w.s.BlockAccount(t.Context(), "bob", api.BlockAccount{Reason: strings.Repeat("x", maxReason+1)}), chat.Invalid)
}
