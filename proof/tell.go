package proof

// This file says in sentences what a verdict found. Each English format has its German one in german.go.

// tell writes the sentences.
func (r *reading) tell() {
	r.headline = r.head()
	r.say("The ledger %s signed a tree of %d entries, and a map of them that shows what is not there: nothing was left out up to then.", Origin(r.Host), r.LedgerSize)
	r.tellWitnesses()
	for _, d := range r.Devices {
		r.tellDevice(d)
	}
	for _, g := range r.Grants {
		r.tellGrant(g)
	}
	for _, s := range r.Reads {
		r.tellRead(s)
	}
	if r.Posts+r.Deletes > 0 {
		r.say("For %s, %s put %s through the slot and took back %s.", r.Handle, r.PartnerName, posts(r.Posts), posts(r.Deletes))
	}
	if r.OtherPosts+r.OtherDeletes > 0 {
		r.say("In conversations with %s, under grants that are not shown here (other people's, or erased), %s put %s through the slot and took back %s.",
			r.Handle, r.PartnerName, posts(r.OtherPosts), posts(r.OtherDeletes))
	}
	if r.Erased > 0 {
		r.say("The contents of %s were erased or are withheld; what they say is not known.", count{r.Erased, "record", "records"})
	}
	if len(r.Grants)+len(r.Reads) > 0 {
		r.say("There is no other grant of %s for %s, and no other access.", r.Handle, r.PartnerName)
	}
	r.tellLimits()
}

func (r *reading) say(format string, args ...any) {
	r.sentences = append(r.sentences, message{format, args})
}

func (r *reading) limit(format string, args ...any) {
	r.limits = append(r.limits, message{format, args})
}

func posts(n int) count { return count{n, "post", "posts"} }

// who is the person, with the host.
func (r *reading) who() string { return r.Handle + "@" + r.Host }

// head is the one sentence that comes first.
func (r *reading) head() message {
	own := func(s ReadVerdict) bool { return s.Granting == r.Account }
	switch r.Kind {
	case NeverAnything:
		return message{"%s was never allowed anything by %s and could never read anything of theirs: there is no grant, no exposure and no access, %s.",
			[]any{r.PartnerName, r.who(), r.AsOf}}
	case NeverRead:
		return message{"%s could never read anything of %s: something was granted, but no reader was ever let in, %s.", []any{r.PartnerName, r.who(), r.AsOf}}
	case WasExposed:
		return message{"%s could read what %s wrote and received, by a grant of somebody else in the thread: %s, %s.",
			[]any{r.PartnerName, r.who(), spans{r.Reads}, r.AsOf}}
	case HadAccess:
		var reads []ReadVerdict
		for _, s := range r.Reads {
			if own(s) {
				reads = append(reads, s)
			}
		}
		if len(reads) == 0 {
			return message{"%s was served messages of %s, and no exposure of them is recorded, %s.", []any{r.PartnerName, r.who(), r.AsOf}}
		}
		return message{"%s could read what %s wrote and received, by that person's own grant: %s, %s.", []any{r.PartnerName, r.who(), spans{reads}, r.AsOf}}
	case KeysAlone:
		return message{"These are all keys of devices that %s ever had: %s, in %s of the key chain, %s.", []any{r.who(),
			count{len(r.Devices), "device", "devices"}, count{len(r.v.bundle.KeyChain), "entry", "entries"}, r.AsOf}}
	}
	return message{"Something between %s and %s was logged whose contents were erased or are withheld: whether anything could be read, this file does not say, %s.",
		[]any{r.PartnerName, r.who(), r.AsOf}}
}

// in is the moment up to which a verdict speaks.
func (a AsOf) in(lang Lang) string {
	switch {
	case a.By != "witnesses":
		return message{"as of %s by the server's clock", []any{clock(a.From)}}.in(lang)
	case a.From == a.To:
		return message{"as of %s by the witnesses' clocks", []any{clock(a.From)}}.in(lang)
	}
	return message{"as of between %s and %s by the witnesses' clocks", []any{clock(a.From), clock(a.To)}}.in(lang)
}

// spans are what could be read, in short.
type spans struct{ list []ReadVerdict }

// maxSpans is how many spans a headline names.
const maxSpans = 3

func (s spans) in(lang Lang) string {
	shown := s.list[:min(len(s.list), maxSpans)]
	text := join(shown, lang, func(r ReadVerdict) phrase {
		id := r.Conversation.String()[:8]
		if r.ToEpoch == nil {
			return message{"conversation %s from epoch %d on", []any{id, r.FromEpoch}}
		}
		return message{"conversation %s from epoch %d to epoch %d", []any{id, r.FromEpoch, *r.ToEpoch}}
	})
	if more := len(s.list) - len(shown); more > 0 {
		text += message{" and %d more", []any{more}}.in(lang)
	}
	return text
}

func (r *reading) tellWitnesses() {
	for _, w := range r.Witnesses {
		if w.NotIndependent {
			r.say("%s signed that tree at %s by its own clock; the operator runs it: not independent.", w.Name, clock(w.At))
		} else {
			r.say("%s signed that tree at %s by its own clock.", w.Name, clock(w.At))
		}
	}
	if len(r.Witnesses) == 0 {
		r.say("No witness signed that tree.")
	}
}

func (r *reading) tellDevice(d DeviceVerdict) {
	switch {
	case d.Removed == 0:
		r.say("Device %q (%s) came with entry %d of the key chain and is in it.", d.Name, d.Device, d.Added)
	case d.Stolen:
		r.say("Device %q (%s) came with entry %d of the key chain and was removed as stolen with entry %d.", d.Name, d.Device, d.Added, d.Removed)
	default:
		r.say("Device %q (%s) came with entry %d of the key chain and was removed with entry %d.", d.Name, d.Device, d.Added, d.Removed)
	}
}

func (r *reading) tellGrant(g GrantVerdict) {
	r.say("%s granted %s: %s; in conversation %s, from %s until %s (grant %s, entry %d).", r.Handle, r.PartnerName,
		words(g.Actions), g.Conversation, clock(g.Issued), clock(g.Expiry), g.Grant, g.Index)
	if g.endIndex != 0 {
		r.say("That grant was %s %s, entry %d.", word(g.How), clock(g.Ended), g.endIndex)
	} else if len(g.Left) < len(g.Actions) {
		r.say("That grant was narrowed to: %s.", words(g.Left))
	}
}

func (r *reading) tellRead(s ReadVerdict) {
	who := message{"under a grant of %s", []any{r.Handle}}
	if s.Granting != r.Account {
		who = message{"under a grant of account %s", []any{s.Granting}}
	}
	if s.ToEpoch != nil {
		r.say("%s could read conversation %s from epoch %d to epoch %d (times %s to %s, by the server's clock), %s.",
			r.PartnerName, s.Conversation, s.FromEpoch, *s.ToEpoch, clock(s.From), clock(s.To), who)
	} else {
		r.say("%s could read conversation %s from epoch %d on (time %s, by the server's clock), %s; it had not ended by then.",
			r.PartnerName, s.Conversation, s.FromEpoch, clock(s.From), who)
	}
	if s.Periods > 0 {
		r.say("It was served there in %s, of which %d are closed: %s, %d of them on the server's word alone (%d closings countersigned by the agent).",
			count{s.Periods, "access period", "access periods"}, s.Closed, count{int(s.Entries), "message", "messages"}, s.EntriesUnsigned, s.Countersigned)
	}
}

func (r *reading) tellLimits() {
	r.limit("It knows nothing of what came after that checkpoint.")
	if r.Kind == KeysAlone {
		r.limit("It shows keys, not who held the devices.")
	} else {
		r.limit("It shows no other accounts and no other partners than the one named.")
		r.limit("What could be read may have been copied and passed on; what went another way than through this server leaves no trace here.")
		r.limit("Times of records are the word of the server and of the person's devices.")
	}
	switch {
	case len(r.Witnesses) == 0:
		r.limit("Without witnesses, that the operator shows everybody the same ledger is the operator's word.")
	case r.allOperators():
		r.limit("All these witnesses are run by the operator: that everybody is shown the same ledger is the operator's word.")
	default:
		r.limit("Who the witnesses are, and whether they are independent of the operator and of each other, no file can show: know who they are.")
	}
	if !r.LedgerPinned && !r.PolicyPinned {
		r.limit("The ledger's key is the bundle's own claim: compare it with the one that the server publishes.")
	}
	if !r.VRFPinned {
		r.limit("The VRF key is what entry 0 of that ledger announces.")
	}
	if !r.PolicyPinned && len(r.v.bundle.Policies) > 0 {
		r.limit("Which witnesses are needed is the bundle's own claim: compare the policy with the one that the server publishes.")
	}
}

func (r *reading) allOperators() bool {
	for _, w := range r.Witnesses {
		if !w.NotIndependent {
			return false
		}
	}
	return true
}
