package keychain

import (
	"maps"
	"slices"

	"letterlock/chat"
)

// Uses is what a person lets others know about their own use of a partner's app.
type Uses uint64

// The answers.
const (
	NotTold Uses = iota
	UsesIt
	UsesItNot
)

// String is the answer's name.
func (u Uses) String() string {
	switch u {
	case UsesIt:
		return "yes"
	case UsesItNot:
		return "no"
	}
	return "not told"
}

const (
	noApps uint64 = iota + 1
	usesApp
)

// Preference is one wish about partner apps, made by NoApps or UsesApp.
type Preference struct {
	_       struct{} `cbor:",toarray"`
	Name    uint64
	Partner string
	Value   uint64
}

// NoApps is the wish to have no threads with a partner's app, or with any if partner is empty; on false takes the wish back.
func NoApps(partner string, on bool) Preference {
	p := Preference{Name: noApps, Partner: partner}
	if on {
		p.Value = 1
	}
	return p
}

// UsesApp is what a partner and friends may be told about whether the person uses the partner's app.
func UsesApp(partner string, u Uses) Preference {
	return Preference{Name: usesApp, Partner: partner, Value: uint64(u)}
}

func (p Preference) check() *chat.Error {
	most, all := uint64(0), false
	switch p.Name {
	case noApps:
		most, all = 1, true
	case usesApp:
		most = uint64(UsesItNot)
	default:
		return chat.Errorf(chat.Incompatible, "preference %d is unknown", p.Name)
	}
	if p.Value > most {
		return chat.Errorf(chat.Incompatible, "preference value %d is unknown", p.Value)
	}
	if p.Partner == "" && all {
		return nil
	}
	if chat.CheckPartner(p.Partner) != nil {
		return chat.Errorf(chat.Invalid, "the preference names no partner")
	}
	return nil
}

// Preferences are a person's wishes about partner apps. The zero value has none.
type Preferences struct {
	refused map[string]bool // by partner; "" is all
	uses    map[string]Uses
}

// Refuses reports whether the person wants no threads with the partner's app.
func (p Preferences) Refuses(partner string) bool { return p.refused[""] || p.refused[partner] }

// RefusesAll reports whether the person wants no partner apps at all.
func (p Preferences) RefusesAll() bool { return p.refused[""] }

// Refused lists the partners that the person refuses by name, sorted.
func (p Preferences) Refused() []string {
	names := slices.Sorted(maps.Keys(p.refused))
	if len(names) > 0 && names[0] == "" {
		return names[1:]
	}
	return names
}

// Uses is what may be told about whether the person uses the partner's app.
func (p Preferences) Uses(partner string) Uses { return p.uses[partner] }

// set changes p in place; clone first what others hold.
func (p *Preferences) set(q Preference) {
	switch q.Name {
	case noApps:
		if p.refused == nil {
			p.refused = map[string]bool{}
		}
		if delete(p.refused, q.Partner); q.Value == 1 {
			p.refused[q.Partner] = true
		}
	case usesApp:
		if p.uses == nil {
			p.uses = map[string]Uses{}
		}
		if delete(p.uses, q.Partner); Uses(q.Value) != NotTold {
			p.uses[q.Partner] = Uses(q.Value)
		}
	}
}

func (p Preferences) clone() Preferences {
	return Preferences{refused: maps.Clone(p.refused), uses: maps.Clone(p.uses)}
}
