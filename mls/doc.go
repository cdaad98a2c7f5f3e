// Package mls keeps a group's secrets (RFC 9420): bytes in, bytes out, no I/O, no clock of its own.
//
// A Group is one member's state of one epoch. Create and Join make the first; Commit prepares the next epoch and leaves the
// group as it is until Pending.Merge; Process opens what others sent, and for their commits returns a Staged that says who
// is added, removed and changed, for the caller to judge before Staged.Merge. What fails leaves the group whole. Only the
// message ratchets move within an epoch, and only after a message was authenticated.
//
// How to keep a group safe: store MarshalBinary before a sealed message leaves the device, and a Pending before its commit
// does. When an old copy may have been restored, compare Generation with the server's count, and use Restored, which seals
// nothing until the device has committed itself a fresh leaf. Compare EpochAuthenticator to find a fork.
//
// Neighbours: package mls/roster is the public half below, shared with the server; callers see its Change, Group and
// Member. Whether a valid commit is wanted is their decision.
//
// What it refuses, beyond what roster refuses: handshakes as PrivateMessage (unless asked), messages of other epochs,
// messages twice, jumps of more than 1,000 generations. Secrets appear in no error, and their type prints as "secret".
//
// A Group and its copies are not safe for concurrent use.
package mls
