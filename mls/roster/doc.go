// Package roster is the public half of MLS (RFC 9420): everything about a group that can be known, checked and computed
// without a secret. It is all of MLS that the server links.
//
// It decodes and encodes every MLS structure, keeps the public ratchet tree with its hashes, verifies signatures, and
// carries a group from one epoch to the next: Open reads a signed GroupInfo, Stage judges a commit that travels as a
// PublicMessage and returns a Change, and Change.Next is the group of the new epoch. Devices run exactly this code below
// package mls, so that server and devices judge a commit alike and one policy function can read the Change on both sides.
//
// Neighbours: package mls adds the secrets on top and must never be imported here. Whether a valid change is allowed
// (who may add whom) is decided by the caller, from the Change.
//
// What it cannot check, for want of keys: membership tags, confirmation tags, and that the path secrets in a commit open.
// A member can therefore make the server take a commit that no device accepts.
//
// What it refuses: other suites than those of Suites, other credentials than basic ones, external commits (unless the
// caller asks), ReInit, external proposals other than Remove, two members with one identity, a member that changes its
// identity, and anything above the limits of limits.go. Bytes from outside end in an error, never in a panic.
package roster
