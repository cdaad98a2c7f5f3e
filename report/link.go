package report

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/url"
	"path"
	"strings"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/store"
)

const maxBase = 512 // bytes

// NewLink makes a share link under one of the agreement's link bases, within the transaction that decided that the agent may.
func (s *Service) NewLink(tx *store.Tx, a *grant.Agreement, r api.InboxLink, to api.Recipient) (api.InboxLinked, error) {
	if err := checkBase(a, r.Base); err != nil {
		return api.InboxLinked{}, err
	}
	if err := CheckLabels(a, r.Interface, r.Surface, r.Variant); err != nil {
		return api.InboxLinked{}, err
	}
	labels := Labels{r.Interface, r.Surface, r.Variant, to}
	l := store.Link{Partner: a.Partner, Number: a.Number, Base: r.Base, Labels: labels.row()}
	if _, err := io.ReadFull(s.Rand, l.ID[:]); err != nil {
		return api.InboxLinked{}, err
	}
	id := hex.EncodeToString(l.ID[:])
	return api.InboxLinked{ID: id, URL: s.PublicURL + "/l/" + id}, tx.AddLink(l)
}

// checkBase wants an address under one of the agreement's bases: same scheme and host, and its path the base's or below.
func checkBase(a *grant.Agreement, base string) error {
	u, err := url.Parse(base)
	if err != nil || len(base) > maxBase || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" ||
		strings.Contains(base, "#") || u.String() != base {
		return chat.Errorf(chat.Invalid, "a link's base is an address of at most %d bytes without query and fragment", maxBase)
	}
	if u.Path != "" && path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") && u.Path != "/" || strings.ContainsAny(u.Path, "\\%") {
		return chat.Errorf(chat.Invalid, "a link's base has a plain path")
	}
	for _, allowed := range a.LinkBases {
		b, err := url.Parse(allowed)
		if err == nil && b.Scheme == u.Scheme && b.Host == u.Host && under(u.Path, b.Path) {
			return nil
		}
	}
	return chat.Errorf(chat.Forbidden, "the agreement with %s has no link base for this address", a.Name)
}

// under says that a path is the base's or below it; /films is not under /film.
func under(p, base string) bool {
	base = strings.TrimSuffix(base, "/")
	return p == base || strings.HasPrefix(p, base+"/")
}

// Follow counts one click and says where it leads: to the partner's address and the link's id. What the link is about is in the fragment,
// which the browser keeps to itself and takes along.
func (s *Service) Follow(ctx context.Context, id string) (to string, err error) {
	var l store.Link
	b, err := hex.DecodeString(id)
	if err != nil || copy(l.ID[:], b) != len(l.ID) || len(b) != len(l.ID) || hex.EncodeToString(b) != id {
		return "", errNoLink
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		l, err = tx.Link(l.ID)
		if err != nil {
			return err
		}
		return tx.AddCount(store.Count{Partner: l.Partner, Day: s.Now().UnixMilli() / dayMS, Number: l.Number, Labels: l.Labels, Clicks: 1})
	})
	if errors.Is(err, store.ErrNotFound) {
		return "", errNoLink
	}
	return strings.TrimSuffix(l.Base, "/") + "/" + id, err
}

var errNoLink = chat.Errorf(chat.NotFound, "there is no such link")
