package grant

import (
	"crypto/ed25519"

	"letterlock/canon"
	"letterlock/chat"
)

// Purpose is what a certified key is for.
type Purpose uint8

// The purposes.
const (
	AgentPurpose Purpose = 1 // certifies the keys of grants; signed by the root key
	GrantPurpose Purpose = 2 // posts and reads under one grant; signed by the agent key
)

// Cert says that a key belongs to a partner.
type Cert struct {
	_         struct{} `cbor:",toarray"`
	Version   uint64
	Partner   string
	Purpose   Purpose
	Grant     chat.GrantID // zero for an agent key
	Key       [32]byte
	NotBefore int64
	NotAfter  int64
}

// Certs is the way from a partner's root key to the key of one grant.
type Certs struct {
	_     struct{} `cbor:",toarray"`
	Agent []byte   // Signed Cert
	Grant []byte   // Signed Cert
}

// Certify signs a certificate.
func Certify(signer ed25519.PrivateKey, c Cert) ([]byte, error) {
	c.Version = version
	return canon.Seal(signer, domainCert, &c)
}

// OpenCert checks one certificate under its signer's key and reads it.
func OpenCert(signed []byte, signer ed25519.PublicKey) (*Cert, error) {
	var c Cert
	if len(signed) > MaxCerts {
		return nil, chat.Errorf(chat.TooLarge, "certificate: larger than %d bytes", MaxCerts)
	}
	if err := canon.Open(signed, signer, domainCert, &c); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "a certificate is not signed by the key above it")
	}
	if c.Version != version || chat.CheckPartner(c.Partner) != nil || c.NotAfter <= c.NotBefore {
		return nil, chat.Errorf(chat.Invalid, "a certificate is malformed")
	}
	return &c, nil
}

// CheckCerts follows the certificates from the root key to the key of the grant, as of the time given, and returns that key.
func CheckCerts(certs []byte, root ed25519.PublicKey, partner string, id chat.GrantID, at int64) (ed25519.PublicKey, error) {
	if len(certs) > MaxCerts {
		return nil, chat.Errorf(chat.TooLarge, "certificates: larger than %d bytes", MaxCerts)
	}
	var cs Certs
	if err := canon.Unmarshal(certs, &cs); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the certificates cannot be read")
	}
	agent, err := step(cs.Agent, root, Cert{Partner: partner, Purpose: AgentPurpose}, at)
	if err != nil {
		return nil, err
	}
	return step(cs.Grant, agent, Cert{Partner: partner, Purpose: GrantPurpose, Grant: id}, at)
}

func step(signed []byte, signer ed25519.PublicKey, want Cert, at int64) (ed25519.PublicKey, error) {
	c, err := OpenCert(signed, signer)
	if err != nil {
		return nil, err
	}
	if c.Partner != want.Partner || c.Purpose != want.Purpose || c.Grant != want.Grant {
		return nil, chat.Errorf(chat.Invalid, "a certificate is for something else")
	}
	if at < c.NotBefore || at >= c.NotAfter {
		return nil, chat.Errorf(chat.Expired, "a certificate was not valid then")
	}
	return c.Key[:], nil
}
