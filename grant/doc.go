// Package grant decides what a partner may do. It holds the formats of spec/grant.md (agreements, certificates, grants, revocations,
// the extension that lists live grants in a conversation's GroupContext) and the two pure decisions over them: Judge, whether a
// commit is valid, which server and clients ask alike, and May, whether an agent's call is allowed.
//
// It reads no clock, no database and no network: whoever asks hands in what is true. It makes no keys and sends nothing. What a
// proof in the ledger is worth is told to it by its caller (Trust), since package proof stands above it.
package grant
