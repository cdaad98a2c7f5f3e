package roster

import "time"

// Limits on what is read from outside. Each is checked before memory is spent.
const (
	// MaxMessageSize bounds one MLSMessage and one snapshot of public state, in bytes. A Welcome for 1,000 members is
	// about 325 kB.
	MaxMessageSize = 8 << 20
	// MaxLeaves bounds the width of a ratchet tree, in leaves, blank ones included.
	MaxLeaves = 1 << 14
	// MaxPending bounds the proposals remembered in one epoch.
	MaxPending = 256
	// MaxLifetime is the longest lifetime of a KeyPackage that is accepted where a clock is given (RFC 9420, section 7.2).
	MaxLifetime = 400 * 24 * time.Hour
)
