package proof

import (
	"crypto/ed25519"

	"letterlock/canon"
	"letterlock/chat"
)

// PromiseWindow is how long a server may take from a promise to inclusion, in milliseconds.
const PromiseWindow = 60_000

// Promise is a server's word that a leaf will be in its log by a time. Kept by an agent, it is evidence when it was broken.
type Promise struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Host    string
	Leaf    Hash
	At, By  int64 // ms
}

// MakePromise signs a promise at a time.
func MakePromise(server ed25519.PrivateKey, host string, leaf Hash, at int64) ([]byte, error) {
	p := Promise{Version: version, Host: host, Leaf: leaf, At: at, By: at + PromiseWindow}
	if err := p.check(); err != nil {
		return nil, err
	}
	return canon.Seal(server, domainPromise, &p)
}

// OpenPromise checks a promise of a host under its server key.
func OpenPromise(data []byte, server ed25519.PublicKey, host string) (*Promise, error) {
	if len(data) > MaxPromise {
		return nil, tooLarge("promise", MaxPromise)
	}
	var p Promise
	if err := canon.Open(data, server, domainPromise, &p); err != nil {
		return nil, chat.Wrap(chat.Unproven, err, "the promise is not signed by the server")
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if p.Host != host {
		return nil, invalid("the promise is another server's")
	}
	return &p, nil
}

func (p *Promise) check() error {
	switch {
	case p.Version != version:
		return chat.Errorf(chat.Incompatible, "promise: version %d is not known here", p.Version)
	case p.At < 0 || p.By != p.At+PromiseWindow:
		return invalid("promise: it does not promise inclusion within %d seconds", PromiseWindow/1000)
	}
	return chat.CheckHost(p.Host)
}

// Statement says what a reading agent was served in an access period. The server offers it, the agent compares it with what it was
// served and countersigns, so that nobody can be framed.
type Statement struct {
	_            struct{} `cbor:",toarray"`
	Version      uint8
	Host         string
	Conversation chat.ConversationID
	Grant        chat.GrantID
	Epoch        uint64 // of the last entry served
	Period       int64  // ms: start of the period
	From, To     uint64
	Count        uint64
}

// Bytes is the statement's encoding: what is offered and signed.
func (s *Statement) Bytes() []byte {
	s.Version = version
	return canon.MustMarshal(s)
}

// ParseStatement reads a statement that a server offers.
func ParseStatement(data []byte) (*Statement, error) {
	if len(data) > MaxReceipt {
		return nil, tooLarge("statement", MaxReceipt)
	}
	var s Statement
	if err := canon.Unmarshal(data, &s); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "statement: malformed")
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := chat.CheckHost(s.Host); err != nil {
		return nil, err
	}
	return &s, checkThread(s.Conversation, s.Grant)
}

func (s *Statement) check() error {
	if s.Version != version {
		return chat.Errorf(chat.Incompatible, "statement: version %d is not known here", s.Version)
	}
	// Nothing served: count 0 and to = from - 1.
	if s.From == 0 || s.To+1 < s.From || s.Count > s.To+1-s.From {
		return invalid("statement: the range and the count of entries do not fit")
	}
	return checkPeriod(s.Period)
}

// Receipt countersigns the statement with the agent's key: the Signed of spec/ledger.md section 6.
func (s *Statement) Receipt(agent ed25519.PrivateKey) []byte {
	body := s.Bytes()
	return canon.MustMarshal(canon.Signed{Body: body, Sig: canon.Sign(agent, domainReceipt, body)})
}

// OpenReceipt checks a receipt under the agent's key and returns the statement and the countersignature that a Close holds.
func OpenReceipt(data []byte, agent ed25519.PublicKey) (*Statement, []byte, error) {
	if len(data) > MaxReceipt {
		return nil, nil, tooLarge("receipt", MaxReceipt)
	}
	var signed canon.Signed
	if err := canon.Unmarshal(data, &signed); err != nil {
		return nil, nil, chat.Wrap(chat.Invalid, err, "receipt: malformed")
	}
	if !canon.Verify(agent, domainReceipt, signed.Body, signed.Sig) {
		return nil, nil, unproven("the receipt is not signed by the agent")
	}
	s, err := ParseStatement(signed.Body)
	return s, signed.Sig, err
}

// Close makes the payload of a statement. The countersignature is that of OpenReceipt, or empty.
func (s *Statement) Close(countersignature []byte) *Close {
	return &Close{Conversation: s.Conversation, Grant: s.Grant, Epoch: s.Epoch, Period: s.Period,
		From: s.From, To: s.To, Count: s.Count, Countersignature: countersignature}
}

// Statement is what the agent countersigned, on the host of the log.
func (p *Close) Statement(host string) *Statement {
	return &Statement{Version: version, Host: host, Conversation: p.Conversation, Grant: p.Grant, Epoch: p.Epoch, Period: p.Period,
		From: p.From, To: p.To, Count: p.Count}
}

// CheckCountersignature checks that the agent signed what the record says.
func (p *Close) CheckCountersignature(host string, agent ed25519.PublicKey) error {
	if !canon.Verify(agent, domainReceipt, p.Statement(host).Bytes(), p.Countersignature) {
		return unproven("the close of an access period is not countersigned by the agent")
	}
	return nil
}
