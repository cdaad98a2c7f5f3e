package cmd

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"letterlock/chat"
)

// TestHelp: every command says what it does and shows how.
func TestHelp(t *testing.T) {
	n := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.Name() == "help" || c.Name() == "completion" || c.Parent() != nil && c.Parent().Name() == "completion" {
			return
		}
		n++
		if c.Short == "" || !strings.Contains(c.Example, "letterlock ") {
			t.Errorf("%s: no short help, or no example", c.CommandPath())
		}
	}
	walk(rootCommand())
	if n < 40 {
		t.Fatalf("found %d commands only", n)
	}
}

// run runs a command line and returns its exit code with what it printed.
func run(args ...string) (code int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	code = Main(args, strings.NewReader(""), &out, &errOut)
	return code, out.String(), errOut.String()
}

func TestWrongCommandLines(t *testing.T) {
	for _, args := range [][]string{
		{"nosuch"}, {"client", "nosuch"}, {"client", "friends", "nosuch"}, {"client", "--nosuch"}, {"client", "signup"}, {"verify"},
		{"verify", "a", "b"}, {"client", "whoami"}, {"admin", "partner", "list"}, {"serve"}, {"client", "--home", "x", "send", "bob"},
	} {
		t.Setenv("LETTERLOCK_HOME", "")
		code, _, stderr := run(args...)
		if code != exitUsage || !strings.HasPrefix(stderr, "letterlock: ") {
			t.Errorf("letterlock %s: exit code %d, %q", strings.Join(args, " "), code, stderr)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for kind, want := range map[chat.Kind]int{
		chat.Forbidden: exitRefused, chat.Expired: exitRefused, chat.Tampered: exitTampered, chat.Unproven: exitTampered,
		chat.Unavailable: exitRetry, chat.TooMany: exitRetry, chat.Invalid: exitFailed, chat.NotFound: exitFailed, chat.Internal: exitFailed,
	} {
		if got := exitCode(chat.Errorf(kind, "x")); got != want {
			t.Errorf("%s: exit code %d, want %d", kind, got, want)
		}
	}
	if got := exitCode(nil); got != exitOK {
		t.Errorf("no error: exit code %d", got)
	}
}

func TestHelpOfGroups(t *testing.T) {
	for _, args := range [][]string{{}, {"client"}, {"client", "friends"}, {"admin"}, {"admin", "partner"}, {"agent"}} {
		if code, stdout, _ := run(args...); code != exitOK || !strings.Contains(stdout, "Available Commands") {
			t.Errorf("letterlock %s: exit code %d without help", strings.Join(args, " "), code)
		}
	}
}
