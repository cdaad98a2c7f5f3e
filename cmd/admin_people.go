package cmd

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"letterlock/api"
)

func (f *adminFlags) inviteCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "invite", Short: "Invitations, for a server with --registration invite: create, list, revoke",
		Example: "  letterlock admin --data ./data invite create",
	}
	var uses int64
	var expires string
	create := &cobra.Command{
		Use: "create", Short: "Make an invitation; its code is shown once", Args: args(0, 0),
		Example: "  letterlock admin --data ./data invite create\n  letterlock admin --data ./data invite create --uses 20 --expires 14d --json",
		RunE: func(c *cobra.Command, _ []string) error {
			life, err := parseDays(expires)
			if err != nil {
				return err
			}
			var got api.Invite
			if err := f.call(c.Context(), http.MethodPost, "/invites", api.NewInvite{Uses: uses, ExpiresIn: int64(life.Seconds())}, &got); err != nil {
				return err
			}
			return answer(c, f.json, got, func(w io.Writer) {
				fmt.Fprintf(w, "%s\n  lets in %d, until %s; to end it: letterlock admin invite revoke %s\n", got.Code, got.Uses, stamp(got.Expires), got.ID)
			})
		},
	}
	create.Flags().Int64Var(&uses, "uses", 1, "how many people it lets in")
	create.Flags().StringVar(&expires, "expires", "7d", "how long it lasts: days like 7d, or hours like 36h")
	list := &cobra.Command{
		Use: "list", Short: "List invitations; codes are not kept and not shown", Args: args(0, 0),
		Example: "  letterlock admin --data ./data invite list",
		RunE: func(c *cobra.Command, _ []string) error {
			var got api.InviteList
			if err := f.call(c.Context(), http.MethodGet, "/invites", nil, &got); err != nil {
				return err
			}
			return answer(c, f.json, got, func(w io.Writer) {
				for _, i := range got.Invites {
					fmt.Fprintf(w, "%s  %d of %d used, until %s\n", i.ID, i.Used, i.Uses, stamp(i.Expires))
				}
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "End an invitation; who came in by it stays", Args: args(1, 1),
		Example: "  letterlock admin --data ./data invite revoke 0123456789abcdef",
		RunE: func(c *cobra.Command, a []string) error {
			if err := f.call(c.Context(), http.MethodPost, "/invites/"+url.PathEscape(a[0])+"/revoke", nil, nil); err != nil {
				return err
			}
			return answer(c, f.json, map[string]string{"revoked": a[0]}, func(w io.Writer) { fmt.Fprintf(w, "%s lets nobody in any more.\n", a[0]) })
		},
	}
	c.AddCommand(create, list, revoke)
	return c
}

// parseDays reads a length of time in days, like 7d, or as Go writes durations, like 36h.
func parseDays(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%w: %q is no length of time: write 7d or 36h", errUsage, s)
	}
	return d, nil
}

func (f *adminFlags) accountCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "account", Short: "People's accounts: block, unblock, show, list those that are blocked",
		Example: "  letterlock admin --data ./data account show alice",
	}
	var reason string
	block := &cobra.Command{
		Use: "block HANDLE", Short: "Shut somebody out at once; nothing of theirs is deleted", Args: args(1, 1),
		Long: `Shut somebody out at once. Their sessions end and their live connections close; they can sign in, send and read no more,
nobody can add them to anything, and partners' calls for them are refused. Their data and their messages to others stay.`,
		Example: "  letterlock admin --data ./data account block bob --reason \"sent advertisements\"",
		RunE: func(c *cobra.Command, a []string) error {
			return f.change(c, a[0], "/block", api.BlockAccount{Reason: reason}, "blocked", "%s is blocked.\n")
		},
	}
	block.Flags().StringVar(&reason, "reason", "", "why; the person reads it, nobody else does")
	unblock := &cobra.Command{
		Use: "unblock HANDLE", Short: "Let somebody in again; their devices sign in by themselves", Args: args(1, 1),
		Example: "  letterlock admin --data ./data account unblock bob",
		RunE: func(c *cobra.Command, a []string) error {
			return f.change(c, a[0], "/unblock", nil, "unblocked", "%s may come in again.\n")
		},
	}
	show := &cobra.Command{
		Use: "show HANDLE", Short: "Show how an account stands", Args: args(1, 1),
		Example: "  letterlock admin --data ./data account show alice --json",
		RunE: func(c *cobra.Command, a []string) error {
			var got api.AccountStanding
			if err := f.call(c.Context(), http.MethodGet, "/accounts/"+url.PathEscape(a[0]), nil, &got); err != nil {
				return err
			}
			return answer(c, f.json, got, func(w io.Writer) { printStanding(w, got) })
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "List the accounts that are blocked", Args: args(0, 0),
		Example: "  letterlock admin --data ./data account list",
		RunE: func(c *cobra.Command, _ []string) error {
			var got api.AccountStandings
			if err := f.call(c.Context(), http.MethodGet, "/blocked", nil, &got); err != nil {
				return err
			}
			return answer(c, f.json, got, func(w io.Writer) {
				for _, a := range got.Accounts {
					printStanding(w, a)
				}
			})
		},
	}
	c.AddCommand(block, unblock, show, list)
	return c
}

// change makes a call about an account and says what came of it.
func (f *adminFlags) change(c *cobra.Command, handle, what string, in any, done, sentence string) error {
	if err := f.call(c.Context(), http.MethodPost, "/accounts/"+url.PathEscape(handle)+what, in, nil); err != nil {
		return err
	}
	return answer(c, f.json, map[string]string{done: handle}, func(w io.Writer) { fmt.Fprintf(w, sentence, handle) })
}

func printStanding(w io.Writer, a api.AccountStanding) {
	fmt.Fprintf(w, "%s, since %s, %d devices", a.Handle, stamp(a.Created), a.Devices)
	if a.Blocked != 0 {
		fmt.Fprintf(w, ", BLOCKED since %s", stamp(a.Blocked))
	}
	if a.Reason != "" {
		fmt.Fprintf(w, ": %s", a.Reason)
	}
	fmt.Fprintln(w)
}
