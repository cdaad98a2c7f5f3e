package roster

import "bytes"

// snapshotVersion is the first byte of a stored group; spec/mls.md gives the layout.
const snapshotVersion = 1

// MarshalBinary is the group for storage.
func (g *Group) MarshalBinary() ([]byte, error) {
	var w Writer
	w.Uint8(snapshotVersion)
	g.context.Encode(&w)
	w.Opaque(g.tag)
	g.tree.Encode(&w)
	w.Vector(func(w *Writer) {
		for _, p := range g.pending {
			w.Opaque(Marshal(p.content))
		}
	})
	return w.b, nil
}

// UnmarshalGroup reads what MarshalBinary wrote. The tree must match its hash; signatures, checked when the group was
// opened or staged, are not checked again.
func UnmarshalGroup(b []byte) (*Group, error) {
	if len(b) > 2*MaxMessageSize {
		return nil, malformed("snapshot of %d bytes", len(b))
	}
	r := NewReader(bytes.Clone(b))
	if v := r.Uint8(); r.Err() == nil && v != snapshotVersion {
		return nil, unsupported("snapshot version %d", v)
	}
	context, tag, tree := DecodeGroupContext(r), r.Opaque(), r.sub()
	var contents [][]byte
	r.Vector(func(r *Reader) { contents = append(contents, r.Opaque()) })
	if err := r.Done(); err != nil {
		return nil, err
	}
	s, err := SuiteByID(context.Suite)
	if err != nil {
		return nil, err
	}
	if err := checkContextExtensions(context.Extensions); err != nil {
		return nil, err
	}
	t, err := openTree(s, tree, context.TreeHash)
	if err != nil {
		return nil, err
	}
	g := newGroup(s, context, t, tag)
	if err := g.restorePending(contents); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Group) restorePending(contents [][]byte) error {
	if len(contents) > MaxPending {
		return malformed("%d pending proposals", len(contents))
	}
	for _, b := range contents {
		r := NewReader(b)
		a := DecodeAuthenticatedContent(r)
		if err := r.Done(); err != nil {
			return err
		}
		if a.Content.Type != ContentProposal {
			return malformed("pending content of type %d", a.Content.Type)
		}
		g.pending = append(g.pending, pending{a.Ref(g.suite), a})
	}
	return nil
}
