package roster

import "time"

// noTime skips lifetimes.
var noTime time.Time
