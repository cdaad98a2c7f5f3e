package roster

import (
	"errors"
	"fmt"
)

// The kinds of refusal. Every error of this package wraps exactly one of them; none contains a secret.
var (
	// ErrMalformed: the bytes are not what they claim to be, or too many.
	ErrMalformed = errors.New("mls: malformed")
	// ErrUnsupported: well formed, but outside what we speak.
	ErrUnsupported = errors.New("mls: unsupported")
	// ErrSignature: a signature does not verify.
	ErrSignature = errors.New("mls: bad signature")
	// ErrWrongGroup: meant for another group.
	ErrWrongGroup = errors.New("mls: wrong group")
	// ErrWrongEpoch: meant for an earlier or later epoch.
	ErrWrongEpoch = errors.New("mls: wrong epoch")
	// ErrInvalid: breaks a rule of RFC 9420 or one of ours.
	ErrInvalid = errors.New("mls: invalid")
)

func malformed(format string, a ...any) error   { return refuse(ErrMalformed, format, a) }
func unsupported(format string, a ...any) error { return refuse(ErrUnsupported, format, a) }
func invalid(format string, a ...any) error     { return refuse(ErrInvalid, format, a) }

func refuse(kind error, format string, a []any) error {
	return fmt.Errorf("%w: "+format, append([]any{kind}, a...)...)
}
