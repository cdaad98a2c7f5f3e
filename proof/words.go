package proof

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Lang is a language in which a verdict can be told.
type Lang string

// The languages.
const (
	English Lang = "en"
	German  Lang = "de"
)

// ParseLang reads a language.
func ParseLang(s string) (Lang, error) {
	if l := Lang(s); l == English || l == German {
		return l, nil
	}
	return "", invalid("the languages are en and de")
}

// phrase is a part of a sentence that is put differently in each language.
type phrase interface{ in(Lang) string }

// message is a sentence, or a part of one: an English format, which is also its key in the table of German ones, and what it is about.
type message struct {
	format string
	args   []any
}

func (m message) in(lang Lang) string {
	args := slices.Clone(m.args)
	for i, a := range args {
		if p, ok := a.(phrase); ok {
			args[i] = p.in(lang)
		}
	}
	return fmt.Sprintf(translate(m.format, lang), args...)
}

// word is a word or words of the table.
type word string

func (w word) in(lang Lang) string { return translate(string(w), lang) }

// words are joined by commas.
type words []string

func (w words) in(lang Lang) string { return join(w, lang, func(s string) phrase { return word(s) }) }

func join[T any](list []T, lang Lang, each func(T) phrase) string {
	var parts []string
	for _, x := range list {
		parts = append(parts, each(x).in(lang))
	}
	return strings.Join(parts, ", ")
}

// count is a number of things: their word, and that for more than one.
type count struct {
	n         int
	one, many string
}

func (c count) in(lang Lang) string {
	if c.n == 1 {
		return "1 " + translate(c.one, lang)
	}
	return fmt.Sprintf("%d %s", c.n, translate(c.many, lang))
}

func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

func translate(s string, lang Lang) string {
	if lang == German {
		if g, ok := german[s]; ok {
			return g
		}
	}
	return s
}

// Speak puts the verdict's sentences into a language.
func (v *Verdict) Speak(lang Lang) {
	v.lang = lang
	v.Headline = v.headline.in(lang)
	v.Findings, v.Sentences, v.Limits = spoken(v.findings, lang), spoken(v.sentences, lang), spoken(v.limits, lang)
}

func spoken(list []message, lang Lang) []string {
	out := make([]string, len(list))
	for i, m := range list {
		out[i] = m.in(lang)
	}
	return out
}

// Text is the verdict for people, the headline first.
func (v *Verdict) Text() string {
	var s strings.Builder
	fmt.Fprintln(&s, v.Headline)
	for _, line := range v.Findings {
		fmt.Fprintln(&s, translate("CONTRADICTION:", v.lang), line)
	}
	for _, line := range v.Sentences {
		fmt.Fprintln(&s, line)
	}
	fmt.Fprintln(&s, translate("What this cannot say:", v.lang))
	for _, line := range v.Limits {
		fmt.Fprintln(&s, " -", line)
	}
	return s.String()
}
