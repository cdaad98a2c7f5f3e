// Letterlock is an end-to-end-encrypted messenger: server, clients, the partner's agent and the offline checker in one binary.
// See README.md; every command is one file of package cmd.
package main

import (
	"os"

	"letterlock/cmd"
)

func main() { os.Exit(cmd.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
