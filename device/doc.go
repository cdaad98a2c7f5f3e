// Package device is the client's core: what a person's device knows, checks and does. The command line and the browser share it.
//
// A Client holds one device of one account. All it must remember lies in a State (encrypted, transactional; package vault on disk), and
// it reaches the server through the interfaces of package api. Group secrets are package mls, message content package mimi,
// the people's keys package keychain, permission package grant, the ledger package proof: device is where they meet.
//
// Two rules carry it. What leaves the device is first written down, together with the key material that made it, so that a crash
// at any moment neither loses nor doubles a message nor uses a key twice. And there is one way in: whatever the device sent itself, it takes
// from the conversation's log like everything else, so that recovery is the normal path.
//
// It believes the server only where it must (who has which handle at first contact, the order of a conversation). A leaf whose
// key is in no key chain, a commit that breaks the rules of permission, a slot that differs from its own derivation, a ledger that
// contradicts what it remembers: each stops the conversation with a sentence and is kept as evidence.
package device
