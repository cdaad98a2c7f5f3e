package proof

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/canon"
	"letterlock/chat"
)

// Type is the type of a leaf.
type Type uint8

// The types of leaf.
const (
	TypeAgreement  Type = 1
	TypePersonal   Type = 2
	TypeReport     Type = 3
	TypePartnerEnd Type = 4
	TypeServerKeys Type = 5
	TypeMapRoot    Type = 16
	TypeKeyEntry   Type = 17
	TypeRelease    Type = 18
	TypePolicy     Type = 19
)

// Public reports whether leaves of the type are numbered public entries, which the map holds under PublicLabel (spec/map.md section 1).
func (t Type) Public() bool {
	switch t {
	case TypeAgreement, TypeReport, TypePartnerEnd, TypeRelease, TypePolicy:
		return true
	}
	return false
}

// Labelled reports whether leaves of the type carry their label themselves.
func (t Type) Labelled() bool { return t == TypePersonal || t == TypeKeyEntry }

// TypeOf is the type that a leaf claims; 0 where it has none.
func TypeOf(leaf []byte) Type {
	// An array of less than 24 members, then version and type: small integers are their own byte in CBOR.
	if len(leaf) < 3 || leaf[0]>>5 != 4 || leaf[1] > 23 || leaf[2] > 23 {
		return 0
	}
	return Type(leaf[2])
}

// Leaf is an entry of the log: *Agreement, *Personal, *Report, *PartnerEnd, *ServerKeys, *MapRoot, *KeyEntry, *Release or *Policy.
type Leaf interface {
	// Bytes is the encoding of the leaf: what the log holds and hashes.
	Bytes() []byte
	// Type is the leaf's type.
	Type() Type
	check() error
}

// head begins every leaf.
type head struct {
	Format uint8 // version; a Release has a Version of its own
	Kind   Type
}

// Agreement puts a countersigned agreement (package grant) on record, in clear.
type Agreement struct {
	_ struct{} `cbor:",toarray"`
	head
	Countersigned []byte
}

// Personal commits to one record of one person and shows nothing of it. All personal leaves are PersonalSize bytes long.
type Personal struct {
	_ struct{} `cbor:",toarray"`
	head
	Label  [32]byte
	Prev   [32]byte
	Commit [32]byte
}

// PersonalSize is the length of every personal leaf in bytes.
const PersonalSize = 105

// Report commits to the fortnightly report of a partner.
type Report struct {
	_ struct{} `cbor:",toarray"`
	head
	Partner string
	Start   int64 // ms: the first moment of the 14 days
	Report  [32]byte
}

// Cause says why an agreement is over.
type Cause uint8

// The causes.
const (
	CauseEnded   Cause = 1 // it ended as agreed
	CauseStopped Cause = 2 // the operator stopped it
)

// PartnerEnd says in clear that an agreement is over.
type PartnerEnd struct {
	_ struct{} `cbor:",toarray"`
	head
	Partner   string
	Agreement Hash // leaf hash of its agreement leaf
	At        int64
	Cause     Cause
	Reason    string // for people; at most 256 bytes
}

// ServerKeys announces the keys under which a server signs. It is entry 0 of every log.
type ServerKeys struct {
	_ struct{} `cbor:",toarray"`
	head
	Host       string
	ServerKey  [32]byte // Ed25519
	VRFKey     [32]byte // ristretto255
	LedgerVKey string   // note verifier
	At         int64
}

// MapRoot says what the map of the log is before it (spec/map.md section 4). It is the last entry of every published tree.
type MapRoot struct {
	_ struct{} `cbor:",toarray"`
	head
	Covers int64 // its own index: the entries before it
	At     int64 // ms, the server's clock
	Public uint64
	Root   Hash
}

// KeyEntry commits to one entry of a key chain.
type KeyEntry struct {
	_ struct{} `cbor:",toarray"`
	head
	Label [32]byte
	Entry [32]byte // SHA-256 of the entry
}

// Release puts the hash of a released file on record.
type Release struct {
	_ struct{} `cbor:",toarray"`
	head
	Name, Version string
	SHA256        [32]byte
}

// Policy puts the witness policy on record (spec/witness.md section 3).
type Policy struct {
	_ struct{} `cbor:",toarray"`
	head
	Text string // tlog-policy
}

// LeafHash is the RFC 6962 hash of a leaf's bytes.
func LeafHash(leaf []byte) Hash { return tlog.RecordHash(leaf) }

// Bytes implements Leaf, and so on for the other types.
func (l *Agreement) Bytes() []byte {
	l.head = head{version, TypeAgreement}
	return canon.MustMarshal(l)
}

func (l *Personal) Bytes() []byte {
	l.head = head{version, TypePersonal}
	return canon.MustMarshal(l)
}

func (l *Report) Bytes() []byte {
	l.head = head{version, TypeReport}
	return canon.MustMarshal(l)
}

func (l *PartnerEnd) Bytes() []byte {
	l.head = head{version, TypePartnerEnd}
	return canon.MustMarshal(l)
}

func (l *ServerKeys) Bytes() []byte {
	l.head = head{version, TypeServerKeys}
	return canon.MustMarshal(l)
}

func (l *MapRoot) Bytes() []byte {
	l.head = head{version, TypeMapRoot}
	return canon.MustMarshal(l)
}

func (l *KeyEntry) Bytes() []byte {
	l.head = head{version, TypeKeyEntry}
	return canon.MustMarshal(l)
}

func (l *Release) Bytes() []byte {
	l.head = head{version, TypeRelease}
	return canon.MustMarshal(l)
}

func (l *Policy) Bytes() []byte {
	l.head = head{version, TypePolicy}
	return canon.MustMarshal(l)
}

// Type implements Leaf, and so on for the other types.
func (l *Agreement) Type() Type  { return TypeAgreement }
func (l *Personal) Type() Type   { return TypePersonal }
func (l *Report) Type() Type     { return TypeReport }
func (l *PartnerEnd) Type() Type { return TypePartnerEnd }
func (l *ServerKeys) Type() Type { return TypeServerKeys }
func (l *MapRoot) Type() Type    { return TypeMapRoot }
func (l *KeyEntry) Type() Type   { return TypeKeyEntry }
func (l *Release) Type() Type    { return TypeRelease }
func (l *Policy) Type() Type     { return TypePolicy }

// ParseLeaf reads a leaf. A version or type that is not known is chat.Incompatible.
func ParseLeaf(data []byte) (Leaf, error) {
	if len(data) > MaxLeaf {
		return nil, tooLarge("leaf", MaxLeaf)
	}
	t := TypeOf(data)
	if t == 0 {
		return nil, invalid("leaf: malformed")
	}
	if data[1] != version {
		return nil, chat.Errorf(chat.Incompatible, "leaf: version %d is not known here", data[1])
	}
	l, err := newLeaf(t)
	if err != nil {
		return nil, err
	}
	if err := canon.Unmarshal(data, l); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "leaf: malformed")
	}
	return l, l.check()
}

func newLeaf(t Type) (Leaf, error) {
	switch t {
	case TypeAgreement:
		return new(Agreement), nil
	case TypePersonal:
		return new(Personal), nil
	case TypeReport:
		return new(Report), nil
	case TypePartnerEnd:
		return new(PartnerEnd), nil
	case TypeServerKeys:
		return new(ServerKeys), nil
	case TypeMapRoot:
		return new(MapRoot), nil
	case TypeKeyEntry:
		return new(KeyEntry), nil
	case TypeRelease:
		return new(Release), nil
	case TypePolicy:
		return new(Policy), nil
	}
	return nil, chat.Errorf(chat.Incompatible, "leaf: type %d is not known here", t)
}

// CheckLeaf says whether a leaf made by this program may be logged: its fields make sense and it is not too large.
func CheckLeaf(l Leaf) error {
	if err := l.check(); err != nil {
		return err
	}
	if len(l.Bytes()) > MaxLeaf {
		return tooLarge("leaf", MaxLeaf)
	}
	return nil
}

func (l *Agreement) check() error {
	if len(l.Countersigned) == 0 {
		return invalid("agreement leaf: it holds no agreement")
	}
	return nil
}

func (l *Personal) check() error { return nil }

func (l *Report) check() error {
	if l.Start < 0 {
		return invalid("report leaf: the time is negative")
	}
	return chat.CheckPartner(l.Partner)
}

func (l *PartnerEnd) check() error {
	switch {
	case l.Cause != CauseEnded && l.Cause != CauseStopped:
		return chat.Errorf(chat.Incompatible, "partner-end leaf: cause %d is not known here", l.Cause)
	case l.At < 0:
		return invalid("partner-end leaf: the time is negative")
	case !plain(l.Reason, maxReason):
		return invalid("partner-end leaf: the reason must be at most %d bytes of plain text", maxReason)
	}
	return chat.CheckPartner(l.Partner)
}

func (l *ServerKeys) check() error {
	if err := chat.CheckHost(l.Host); err != nil {
		return err
	}
	v, err := note.NewVerifier(l.LedgerVKey)
	if err != nil || v.Name() != Origin(l.Host) {
		return invalid("server-keys leaf: the ledger key is not a note verifier named %s", Origin(l.Host))
	}
	if l.At < 0 {
		return invalid("server-keys leaf: the time is negative")
	}
	_, err = NewVRFKey(l.VRFKey[:])
	return err
}

func (l *MapRoot) check() error {
	if l.Covers < 1 || l.At < 0 || l.Public > uint64(l.Covers) {
		return invalid("map-root leaf: its numbers make no sense")
	}
	return nil
}

func (l *KeyEntry) check() error { return nil }

func (l *Release) check() error {
	if l.Name == "" || l.Version == "" || !plain(l.Name, maxLabelSize) || !plain(l.Version, maxLabelSize) {
		return invalid("release leaf: name and version must be plain text of 1 to %d bytes", maxLabelSize)
	}
	return nil
}

func (l *Policy) check() error {
	if l.Text == "" || len(l.Text) > MaxPolicy || !utf8.ValidString(l.Text) {
		return invalid("policy leaf: the policy must be text of 1 to %d bytes", MaxPolicy)
	}
	return nil
}

// plain accepts text of at most so many bytes without control or direction-changing characters.
func plain(s string, most int) bool {
	if len(s) > most || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return false
		}
	}
	return true
}
