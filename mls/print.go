package mls

import (
	"fmt"
	"io"
)

// What holds secrets prints by name only: fmt looks into unexported fields without asking them how they print.

func (g Group) Format(f fmt.State, _ rune)      { fmt.Fprintf(f, "mls.Group epoch %d", g.Epoch()) }
func (k KeyPackage) Format(f fmt.State, _ rune) { io.WriteString(f, "mls.KeyPackage") }
func (p Pending) Format(f fmt.State, _ rune)    { io.WriteString(f, "mls.Pending") }
func (s Staged) Format(f fmt.State, _ rune)     { io.WriteString(f, "mls.Staged") }
