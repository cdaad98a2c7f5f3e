package mls

import (
	"errors"
	"fmt"

	"letterlock/mls/roster"
)

// The kinds of refusal, beside those of package roster.
var (
	// ErrDecrypt: a ciphertext does not open; wrong key or altered, nobody can tell.
	ErrDecrypt = errors.New("mls: cannot decrypt")
	// ErrTag: a membership or confirmation tag is wrong.
	ErrTag = errors.New("mls: wrong tag")
	// ErrReplayed: the key of this message was used, or was given up to make room.
	ErrReplayed = errors.New("mls: message key already used")
	// ErrTooFar: the message jumps further ahead than maxForward.
	ErrTooFar = errors.New("mls: message too far ahead")
	// ErrOwnMessage: one of our own messages came back.
	ErrOwnMessage = errors.New("mls: own message")
	// ErrRemoved: the commit removes us.
	ErrRemoved = errors.New("mls: removed from the group")
	// ErrEpochOver: the epoch has ended and its secrets are gone.
	ErrEpochOver = errors.New("mls: epoch is over")
	// ErrMustCommit: a restored group must commit itself a fresh leaf before it seals.
	ErrMustCommit = errors.New("mls: restored group must commit first")
	// ErrNotForUs: the Welcome names none of the given KeyPackage.
	ErrNotForUs = errors.New("mls: welcome is for other key packages")
	// ErrKeyUsed: the KeyPackage has served already.
	ErrKeyUsed = errors.New("mls: key package already used")
	// ErrUnknownPSK: a pre-shared key is not at hand.
	ErrUnknownPSK = errors.New("mls: unknown pre-shared key")
)

func invalid(format string, a ...any) error { return refuse(roster.ErrInvalid, format, a) }

func unsupported(format string, a ...any) error { return refuse(roster.ErrUnsupported, format, a) }

func refuse(kind error, format string, a []any) error {
	return fmt.Errorf("%w: "+format, append([]any{kind}, a...)...)
}
