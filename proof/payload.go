package proof

import (
	"letterlock/canon"
	"letterlock/chat"
)

// Kind is the kind of a payload.
type Kind uint8

// The kinds. A control chain holds 1 to 3, an access chain 16 to 21.
const (
	KindGrant   Kind = 1
	KindNarrow  Kind = 2
	KindRevoke  Kind = 3
	KindOpen    Kind = 16
	KindClose   Kind = 17
	KindPost    Kind = 18
	KindDelete  Kind = 19
	KindExposed Kind = 20
	KindEnded   Kind = 21
)

var kindNames = map[Kind]string{KindGrant: "grant", KindNarrow: "narrow", KindRevoke: "revoke", KindOpen: "open", KindClose: "close",
	KindPost: "post", KindDelete: "delete", KindExposed: "exposed", KindEnded: "ended"}

// String is the kind's name.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return "unknown"
}

// Chain is the chain that admits the kind; 0 if none does.
func (k Kind) Chain() Chain {
	switch {
	case k >= KindGrant && k <= KindRevoke:
		return Control
	case k >= KindOpen && k <= KindEnded:
		return Access
	}
	return 0
}

// Payload is what a record says: *Grant, *Narrow, *Revoke, *Open, *Close, *Post, *Delete, *Exposed or *Ended.
type Payload interface {
	Kind() Kind
	check() error
	setKind()
}

// kind begins every payload.
type kind struct{ K Kind }

// Grant records a signed grant (package grant).
type Grant struct {
	_ struct{} `cbor:",toarray"`
	kind
	Signed []byte
}

// Narrow records a signed narrowing.
type Narrow struct {
	_ struct{} `cbor:",toarray"`
	kind
	Signed []byte
}

// Revoke records a signed revocation.
type Revoke struct {
	_ struct{} `cbor:",toarray"`
	kind
	Signed []byte
}

// Open says that a reading agent is about to be served in an access period.
type Open struct {
	_ struct{} `cbor:",toarray"`
	kind
	Conversation chat.ConversationID
	Grant        chat.GrantID
	Epoch        uint64
	Period       int64  // ms: start of the period
	From         uint64 // seq of the first entry served
}

// Close says what a reading agent was served in an access period.
type Close struct {
	_ struct{} `cbor:",toarray"`
	kind
	Conversation     chat.ConversationID
	Grant            chat.GrantID
	Epoch            uint64 // of the last entry served
	Period           int64
	From, To         uint64 // seqs of the first and last entry served
	Count            uint64 // how many entries
	Countersignature []byte // the agent's, see Statement; empty: the server's word alone
}

// Post says that an agent put a post through the slot.
type Post struct {
	_ struct{} `cbor:",toarray"`
	kind
	Conversation chat.ConversationID
	Grant        chat.GrantID
	Epoch        uint64
	Seq          uint64
	Message      chat.MessageID
	Labels       []string // declared by the agent, out of those that the agreement lists
	Post         [32]byte // SHA-256 of the post's bytes
	At           int64
}

// Delete says that an agent took back a post.
type Delete struct {
	_ struct{} `cbor:",toarray"`
	kind
	Conversation chat.ConversationID
	Grant        chat.GrantID
	Message      chat.MessageID
	Seq          uint64
	At           int64
}

// Exposed says that a reading leaf joined a thread of the account.
type Exposed struct {
	_ struct{} `cbor:",toarray"`
	kind
	Conversation chat.ConversationID
	Grant        chat.GrantID
	Partner      string
	Epoch        uint64 // the first that it can read
	Granting     chat.AccountID
	AgentKey     [32]byte // of the thread's entry: countersigns closes
	At           int64
}

// Ended says that a reading leaf is gone from a thread of the account.
type Ended struct {
	_ struct{} `cbor:",toarray"`
	kind
	Conversation chat.ConversationID
	Grant        chat.GrantID
	Partner      string
	Epoch        uint64 // the first that it cannot read
	Granting     chat.AccountID
	At           int64
}

// Kind implements Payload, and so on for the other payloads.
func (*Grant) Kind() Kind   { return KindGrant }
func (*Narrow) Kind() Kind  { return KindNarrow }
func (*Revoke) Kind() Kind  { return KindRevoke }
func (*Open) Kind() Kind    { return KindOpen }
func (*Close) Kind() Kind   { return KindClose }
func (*Post) Kind() Kind    { return KindPost }
func (*Delete) Kind() Kind  { return KindDelete }
func (*Exposed) Kind() Kind { return KindExposed }
func (*Ended) Kind() Kind   { return KindEnded }

func (p *Grant) setKind()   { p.K = KindGrant }
func (p *Narrow) setKind()  { p.K = KindNarrow }
func (p *Revoke) setKind()  { p.K = KindRevoke }
func (p *Open) setKind()    { p.K = KindOpen }
func (p *Close) setKind()   { p.K = KindClose }
func (p *Post) setKind()    { p.K = KindPost }
func (p *Delete) setKind()  { p.K = KindDelete }
func (p *Exposed) setKind() { p.K = KindExposed }
func (p *Ended) setKind()   { p.K = KindEnded }

func newPayload(k Kind) (Payload, error) {
	switch k {
	case KindGrant:
		return new(Grant), nil
	case KindNarrow:
		return new(Narrow), nil
	case KindRevoke:
		return new(Revoke), nil
	case KindOpen:
		return new(Open), nil
	case KindClose:
		return new(Close), nil
	case KindPost:
		return new(Post), nil
	case KindDelete:
		return new(Delete), nil
	case KindExposed:
		return new(Exposed), nil
	case KindEnded:
		return new(Ended), nil
	}
	return nil, chat.Errorf(chat.Incompatible, "record: payload kind %d is not known here", k)
}

// MarshalPayload checks a payload and writes it.
func MarshalPayload(p Payload) ([]byte, error) {
	p.setKind()
	if err := p.check(); err != nil {
		return nil, err
	}
	data, err := canon.Marshal(p)
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "record: the payload cannot be written")
	}
	if len(data) > MaxPayload {
		return nil, tooLarge("record payload", MaxPayload)
	}
	return data, nil
}

// ParsePayload reads a payload. A kind that is not known is chat.Incompatible.
func ParsePayload(data []byte) (Payload, error) {
	if len(data) > MaxPayload {
		return nil, tooLarge("record payload", MaxPayload)
	}
	k, err := peekKind(data)
	if err != nil {
		return nil, err
	}
	p, err := newPayload(k)
	if err != nil {
		return nil, err
	}
	if err := canon.Unmarshal(data, p); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "record: the payload is malformed")
	}
	return p, p.check()
}

// peekKind reads the first member of an array of less than 24 members; kinds are below 24, their own byte in CBOR.
func peekKind(data []byte) (Kind, error) {
	if len(data) < 2 || data[0]>>5 != 4 || data[1] > 23 {
		return 0, invalid("record: the payload is malformed")
	}
	return Kind(data[1]), nil
}

func checkSigned(signed []byte) error {
	if len(signed) == 0 {
		return invalid("record: the signed entry is missing")
	}
	return nil
}

func (p *Grant) check() error  { return checkSigned(p.Signed) }
func (p *Narrow) check() error { return checkSigned(p.Signed) }
func (p *Revoke) check() error { return checkSigned(p.Signed) }

func checkThread(c chat.ConversationID, g chat.GrantID) error {
	if c.IsZero() || g.IsZero() {
		return invalid("record: conversation or grant is missing")
	}
	return nil
}

func checkPeriod(at int64) error {
	if at < 0 || at%PeriodLength != 0 {
		return invalid("record: an access period begins at a full hour")
	}
	return nil
}

func checkTime(at int64) error {
	if at < 0 {
		return invalid("record: the time is negative")
	}
	return nil
}

func (p *Open) check() error {
	if err := checkThread(p.Conversation, p.Grant); err != nil {
		return err
	}
	return checkPeriod(p.Period)
}

func (p *Close) check() error {
	if err := checkThread(p.Conversation, p.Grant); err != nil {
		return err
	}
	if n := len(p.Countersignature); n != 0 && n != 64 {
		return invalid("record: a countersignature has 64 bytes, or none")
	}
	return p.Statement("").check()
}

func (p *Post) check() error {
	if err := checkThread(p.Conversation, p.Grant); err != nil {
		return err
	}
	if len(p.Labels) > maxLabels {
		return invalid("record: at most %d labels", maxLabels)
	}
	for _, l := range p.Labels {
		if l == "" || !plain(l, maxLabelSize) {
			return invalid("record: a label has 1 to %d bytes of plain text", maxLabelSize)
		}
	}
	return checkTime(p.At)
}

func (p *Delete) check() error {
	if err := checkThread(p.Conversation, p.Grant); err != nil {
		return err
	}
	return checkTime(p.At)
}

func (p *Exposed) check() error {
	return checkExposure(p.Conversation, p.Grant, p.Partner, p.Granting, p.At)
}

func (p *Ended) check() error {
	return checkExposure(p.Conversation, p.Grant, p.Partner, p.Granting, p.At)
}

func checkExposure(c chat.ConversationID, g chat.GrantID, partner string, granting chat.AccountID, at int64) error {
	if err := checkThread(c, g); err != nil {
		return err
	}
	if granting.IsZero() {
		return invalid("record: the granting account is missing")
	}
	if err := chat.CheckPartner(partner); err != nil {
		return err
	}
	return checkTime(at)
}
