package keychain

import (
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"strings"

	"letterlock/canon"
	"letterlock/chat"
)

const (
	domainSafety     = "letterlock/safety-number/v1"
	safetyIterations = 5200 // as Signal's numeric fingerprint: makes a search for a near match dearer
	safetyGroups     = 6    // of five digits, for each person
)

// fingerprint is what the safety number covers of one account.
type fingerprint struct {
	_        struct{} `cbor:",toarray"`
	Account  chat.AccountID
	Recovery publicKey
	Creation [32]byte
}

// SafetyNumber is 60 digits in twelve groups that are the same for both people whoever computes them, and differ if either was
// shown another account, first entry or recovery key than the other has. It stays the same when devices change.
func SafetyNumber(a, b *Chain) string {
	x, y := a.safetyDigits(), b.safetyDigits()
	if x > y {
		x, y = y, x
	}
	return x + " " + y
}

// safetyDigits is one person's half: six groups of five digits.
func (c *Chain) safetyDigits() string {
	input := canon.MustMarshal(fingerprint{Account: c.account, Recovery: c.recovery, Creation: c.Creation()})
	h := sha512.Sum512(append(append([]byte(domainSafety), 0), input...))
	for range safetyIterations {
		h = sha512.Sum512(append(h[:], input...))
	}
	groups := make([]string, safetyGroups)
	for i := range groups {
		var b [8]byte
		copy(b[3:], h[5*i:5*i+5])
		groups[i] = fmt.Sprintf("%05d", binary.BigEndian.Uint64(b[:])%100_000)
	}
	return strings.Join(groups, " ")
}
