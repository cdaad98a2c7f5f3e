package chat

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what sort of failure an error is. Kinds cross the wire as the problem type of RFC 9457; the mapping to HTTP stands
// once, in package httpd.
type Kind string

// The kinds.
const (
	Internal        Kind = "internal"        // our fault; the detail is in the server's log only
	Invalid         Kind = "invalid"         // the bytes or the arguments are wrong; sending them again does not help
	Unauthenticated Kind = "unauthenticated" // no token, an old one, or one whose key was not shown
	Forbidden       Kind = "forbidden"       // known, and not allowed
	NotFound        Kind = "not-found"       // no such thing, or none that the caller may know of
	Exists          Kind = "exists"          // a name or key is taken
	StaleEpoch      Kind = "stale-epoch"     // made for another epoch than the current one: process, make it again, send again
	Blocked         Kind = "blocked"         // the conversation waits for a commit that carries out a removal
	TooLarge        Kind = "too-large"       // above a stated limit
	TooMany         Kind = "too-many"        // a rate or a quota; try again later
	Unavailable     Kind = "unavailable"     // cannot be done now; try again
	NoQuorum        Kind = "no-quorum"       // the ledger's witnesses do not sign: what would need a new proof has to wait
	Mismatch        Kind = "mismatch"        // the same idempotency key with another body
	Expired         Kind = "expired"         // it was good once: a grant, a request, a state
	Unproven        Kind = "unproven"        // a proof is missing or does not hold
	Gone            Kind = "gone"            // deleted
	Incompatible    Kind = "incompatible"    // a version or suite this build does not know
	Tampered        Kind = "tampered"        // a party that should be trusted was caught lying; evidence is kept
)

// Error is a failure with a kind, a sentence for the person who caused it, and a cause for the operator.
type Error struct {
	Kind   Kind
	Detail string // a sentence without secrets and without other people's names
	Err    error  // may be nil; never crosses the wire

	Retry time.Duration // when trying again may help; 0: not known
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Detail + ": " + e.Err.Error()
	}
	return e.Detail
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an error of a kind. The whole text is for the caller to read: do not format a cause into it, Wrap it.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// Wrap makes an error of a kind that keeps its cause for the operator.
func Wrap(kind Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...), Err: cause}
}

// KindOf finds the kind of an error: Internal where it has none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is of the kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }
