// Package proof is what every side checks: the leaves of the public ledger, the labels and chains of a person's records, checkpoints
// and what a reader remembers of them, promises, receipts, and the bundle that proves a history offline. The formats are
// spec/ledger.md; C2SP's tlog formats and RFC 6962 lie below them.
//
// Devices, agents, strangers and the server use the same code. Package ledger is the server's half, which appends and serves;
// packages keychain and grant say whose signature a grant needs and what it means.
//
// It does no I/O, reads no clock and holds no secret but the server's signing keys while Promise and label are made. It refuses
// every encoding but one, every record that does not follow from the one before, and every ledger that contradicts what its reader
// remembers. That something is not in the log it proves by the map (package labelmap), whose root is the last entry of every tree.
package proof

import "letterlock/chat"

// Domain strings of spec/ledger.md.
const (
	domainLabel   = "letterlock/label/v1"
	domainPrev    = "letterlock/prev/v1"
	domainCommit  = "letterlock/commit/v1"
	domainPromise = "letterlock/promise/v1"
	domainReceipt = "letterlock/receipt/v1"
	domainKey     = "letterlock/keychain-label/v1"
	domainPublic  = "letterlock/public/v1"
)

// Limits of spec/ledger.md, in bytes or counts.
const (
	MaxLeaf       = 32 << 10
	MaxPayload    = 17 << 10
	MaxRecord     = 18 << 10
	MaxDisclosure = 18 << 10
	MaxPromise    = 512
	MaxReceipt    = 512
	MaxCheckpoint = 16 << 10
	MaxTlogProof  = 24 << 10
	MaxBundle     = 64 << 20
	MaxRecords    = 1 << 16 // of a chain in a bundle
	MaxAgreements = 64      // in a bundle
	MaxPolicies   = 64      // in a bundle
	MaxPolicy     = 16 << 10
	MaxHead       = 20 << 10

	maxReason    = 256
	maxLabels    = 16
	maxLabelSize = 64
	maxProof     = 63 // hashes of an inclusion or consistency proof, generously
)

const version = 1

// PeriodLength is the length of an access period, in milliseconds.
const PeriodLength = 3_600_000

// Period is the start of the access period that holds the time at.
func Period(at int64) int64 { return at - at%PeriodLength }

// Hash is a leaf hash, a node or a root of the log: SHA-256 as RFC 6962 section 2.1 applies it.
type Hash = [32]byte

func tooLarge(what string, most int) error {
	return chat.Errorf(chat.TooLarge, "%s: larger than %d bytes", what, most)
}

func invalid(format string, args ...any) error { return chat.Errorf(chat.Invalid, format, args...) }

func unproven(format string, args ...any) error { return chat.Errorf(chat.Unproven, format, args...) }
