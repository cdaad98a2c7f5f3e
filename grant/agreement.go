package grant

import (
	"crypto/ed25519"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"letterlock/canon"
	"letterlock/chat"
)

// Agreement is what the operator lets a partner ask people for, and what the partner owes in return.
type Agreement struct {
	_              struct{} `cbor:",toarray"`
	Version        uint64
	Number         uint64 // a newer one replaces an older one
	Host           string
	Partner        string
	Name           string
	RootKey        [32]byte // Ed25519; also served from the partner's own domain
	Actions        chat.Actions
	ReportDays     uint64 // 0: no report
	PostsPerMinute uint64 // for each grant
	LinkBases      []string
	Interfaces     []string // labels that a post may declare
	Surfaces       []string
	Variants       []string
	NotBefore      int64 // ms
	NotAfter       int64 // ms
	Terms          [32]byte
}

// Countersigned is an agreement with both signatures: what the ledger holds.
type Countersigned struct {
	_        struct{} `cbor:",toarray"`
	Body     []byte
	Partner  []byte // signature of the root key
	Operator []byte // signature of the server key
}

func (a *Agreement) check() error {
	switch {
	case a.Version != version:
		return chat.Errorf(chat.Incompatible, "agreement: version %d is not known here", a.Version)
	case chat.CheckHost(a.Host) != nil:
		return chat.Errorf(chat.Invalid, "agreement: the host is malformed")
	case chat.CheckPartner(a.Partner) != nil:
		return chat.CheckPartner(a.Partner)
	case checkText(a.Name, maxName) != nil:
		return chat.Errorf(chat.Invalid, "agreement: the name must be 1 to %d bytes of plain text", maxName)
	case a.NotBefore <= 0 || a.NotAfter <= a.NotBefore:
		return chat.Errorf(chat.Invalid, "agreement: it ends before it begins")
	case a.ReportDays > 366 || a.PostsPerMinute == 0 || a.PostsPerMinute > 1_000_000:
		return chat.Errorf(chat.Invalid, "agreement: a limit is out of range")
	}
	for _, labels := range [][]string{a.Interfaces, a.Surfaces, a.Variants} {
		if len(labels) > maxList {
			return chat.Errorf(chat.Invalid, "agreement: at most %d labels of a kind", maxList)
		}
		for i, l := range labels {
			if checkText(l, maxLabel) != nil || slices.Contains(labels[:i], l) {
				return chat.Errorf(chat.Invalid, "agreement: labels are 1 to %d bytes of plain text, none twice", maxLabel)
			}
		}
	}
	if len(a.LinkBases) > maxList {
		return chat.Errorf(chat.Invalid, "agreement: at most %d link bases", maxList)
	}
	for _, base := range a.LinkBases {
		u, err := url.Parse(base)
		if err != nil || len(base) > maxLinkBase || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return chat.Errorf(chat.Invalid, "agreement: a link base must be an http or https URL without query and fragment")
		}
	}
	return checkActions(a.Actions)
}

// checkText refuses text that is empty, too long, not UTF-8, or that holds control or direction-changing characters.
func checkText(s string, most int) error {
	if s == "" || len(s) > most || !utf8.ValidString(s) || strings.TrimSpace(s) != s ||
		strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
		return chat.Errorf(chat.Invalid, "text is empty, too long or holds control characters")
	}
	return nil
}

// Offer signs the agreement for the partner: the operator countersigns it.
func (a *Agreement) Offer(root ed25519.PrivateKey) ([]byte, error) {
	a.Version = version
	a.RootKey = [32]byte(root.Public().(ed25519.PublicKey))
	if err := a.check(); err != nil {
		return nil, err
	}
	body, err := canon.Marshal(a)
	if err != nil {
		return nil, err
	}
	return canon.Marshal(Countersigned{Body: body, Partner: canon.Sign(root, domainAgreement, body)})
}

// OpenOffer reads an agreement that bears the partner's signature and not yet, or not to be checked, the operator's.
func OpenOffer(data []byte) (*Agreement, error) {
	a, _, err := openAgreement(data)
	return a, err
}

func openAgreement(data []byte) (*Agreement, *Countersigned, error) {
	if len(data) > MaxAgreement {
		return nil, nil, chat.Errorf(chat.TooLarge, "agreement: larger than %d bytes", MaxAgreement)
	}
	var c Countersigned
	var a Agreement
	if err := canon.Unmarshal(data, &c); err != nil {
		return nil, nil, chat.Wrap(chat.Invalid, err, "the agreement cannot be read")
	}
	if err := canon.Unmarshal(c.Body, &a); err != nil {
		return nil, nil, chat.Wrap(chat.Invalid, err, "the agreement cannot be read")
	}
	if err := a.check(); err != nil {
		return nil, nil, err
	}
	if !canon.Verify(a.RootKey[:], domainAgreement, c.Body, c.Partner) {
		return nil, nil, chat.Errorf(chat.Invalid, "the agreement is not signed by the partner's root key")
	}
	return &a, &c, nil
}

// Countersign adds the operator's signature to an offer.
func Countersign(offer []byte, operator ed25519.PrivateKey) ([]byte, error) {
	_, c, err := openAgreement(offer)
	if err != nil {
		return nil, err
	}
	c.Operator = canon.Sign(operator, domainAgreementOperator, c.Body)
	return canon.Marshal(c)
}

// OpenAgreement reads an agreement and checks both signatures.
func OpenAgreement(data []byte, operator ed25519.PublicKey) (*Agreement, error) {
	a, c, err := openAgreement(data)
	if err != nil {
		return nil, err
	}
	if !canon.Verify(operator, domainAgreementOperator, c.Body, c.Operator) {
		return nil, chat.Errorf(chat.Invalid, "the agreement is not signed by this server's operator")
	}
	return a, nil
}

// AgreementHash is the hash by which grants name an agreement.
func AgreementHash(countersigned []byte) Hash { return canon.Hash(domainAgreement, countersigned) }

// Covers says whether a grant stays within the agreement.
func (a *Agreement) Covers(g *Grant) error {
	switch {
	case a.Partner != g.Partner:
		return chat.Errorf(chat.Invalid, "the agreement is another partner's")
	case !a.Actions.Has(g.Actions):
		return chat.Errorf(chat.Forbidden, "the agreement with %s allows %s only", a.Name, a.Actions)
	case g.Issued < a.NotBefore || g.Issued >= a.NotAfter:
		return chat.Errorf(chat.Expired, "the agreement with %s is not in force", a.Name)
	case g.Expiry > a.NotAfter:
		return chat.Errorf(chat.Invalid, "the grant would outlive the agreement with %s", a.Name)
	}
	return nil
}
