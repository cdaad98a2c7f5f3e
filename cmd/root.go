// Package cmd is the command line: one file a command. A command reads its flags, calls the package that does the work, and prints
// what came of it; it decides nothing. Package cmd and main alone join the server's half and the clients' half.
package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"letterlock/chat"
)

// Exit codes, the same for every command.
const (
	exitOK       = 0
	exitFailed   = 1 // it did not work; the last line says why and what to do
	exitUsage    = 2 // the command line was wrong
	exitRefused  = 3 // the server or the other side refused: not allowed, expired, blocked
	exitTampered = 4 // a proof does not hold, or somebody was caught lying
	exitRetry    = 5 // cannot be done now; the same command may work later
)

// errUsage marks errors of the command line itself.
var errUsage = errors.New("usage")

// Main runs the command line and returns its exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cobra.EnableTraverseRunHooks = true // a group's own check runs after the root's
	begun := false
	onRun(root, func() { begun = true })
	err := root.ExecuteContext(ctx)
	if err != nil && !begun && !errors.Is(err, errUsage) { // cobra's own complaints: a missing flag, two that exclude each other
		err = fmt.Errorf("%w: %v", errUsage, err)
	}
	if err != nil {
		fmt.Fprintf(stderr, "letterlock: %v\n", err)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errUsage) {
		return exitUsage
	}
	switch chat.KindOf(err) {
	case chat.Forbidden, chat.Unauthenticated, chat.Expired, chat.Blocked, chat.Gone:
		return exitRefused
	case chat.Tampered, chat.Unproven:
		return exitTampered
	case chat.Unavailable, chat.TooMany, chat.StaleEpoch, chat.NoQuorum:
		return exitRetry
	}
	return exitFailed
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "letterlock",
		Short: "An end-to-end-encrypted messenger whose partner apps hold keys, not promises",
		Long: `Letterlock is an end-to-end-encrypted messenger. Partner apps may send, read and delete messages for a
person with that person's permission: a permission is a key, everyone in the thread sees who can read it, and
anyone can check afterwards what was granted and what was opened.`,
		Example: `  letterlock serve --data ./data
  letterlock client --home ./alice signup alice --server http://127.0.0.1:8080
  letterlock client --home ./alice send bob "Have you seen it?"
  letterlock verify bundle.json`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w: %v (see %s --help)", errUsage, err, c.CommandPath())
	})
	root.Version = version()
	root.SetVersionTemplate("letterlock {{.Version}}\n")
	root.AddCommand(commands()...)
	groups(root)
	return root
}

// onRun calls fn when a command's own work begins: until then, what goes wrong is the command line.
func onRun(c *cobra.Command, fn func()) {
	for _, sub := range c.Commands() {
		onRun(sub, fn)
	}
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			fn()
			return run(c, args)
		}
	}
}

// groups makes a command that only holds others refuse a name that none of them has; without a name it shows its help.
func groups(c *cobra.Command) {
	for _, sub := range c.Commands() {
		groups(sub)
	}
	if c.Runnable() || !c.HasSubCommands() {
		return
	}
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, a []string) error {
		if len(a) == 0 {
			return c.Help()
		}
		return fmt.Errorf("%w: there is no command %q (see %s --help)", errUsage, a[0], c.CommandPath())
	}
}

// commands are all commands, in the order of the help.
func commands() []*cobra.Command {
	return []*cobra.Command{serveCommand(), demoCommand(), clientCommand(), agentCommand(), adminCommand(), verifyCommand(), witnessCommand(), auditCommand(), checkCommand(), backupCommand(), restoreCommand(), migrateCommand(), healthCommand(), benchCommand(), versionCommand()}
}
