package cmd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"letterlock/chat"
	"letterlock/device"
	"letterlock/keychain"
)

func (f *clientFlags) permissionCommands() []*cobra.Command {
	return []*cobra.Command{
		f.partnersCommand(), f.authorizeCommand(), f.grantsCommand(), f.revokeCommand(), f.narrowCommand(), f.historyCommand(),
		f.proofCommand(), f.eraseCommand(), f.appsCommand(), f.checkCommand(),
	}
}

func (f *clientFlags) partnersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "partners", Short: "List the partner apps that may ask, and what their agreements allow", Args: args(0, 0),
		Example: "  letterlock client --home ./alice partners",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, _ []string) error {
			list, err := d.Partners(ctx)
			if err != nil {
				return err
			}
			return f.answer(c, list, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "No partner has an agreement with this server.")
				}
				for _, p := range list {
					state := "may ask for " + strings.Join(p.Actions, ", ")
					if p.ReportDays > 0 {
						state += fmt.Sprintf("; reports every %d days", p.ReportDays)
					}
					if p.Problem != "" {
						state = p.Problem
					}
					fmt.Fprintf(w, "%-16s %-20s %s\n", p.ID, p.Name, state)
				}
			})
		}),
	}
}

func (f *clientFlags) authorizeCommand() *cobra.Command {
	var friend, actions, until string
	var yes, refuse, noOpen bool
	c := &cobra.Command{
		Use:   "authorize URL",
		Short: "Answer a partner app that asks for permission",
		Long: `Shows what a partner app asks for, and what saying yes means. On yes, this device signs the grant, waits until
the public ledger holds it, tells everyone in the thread, and only then lets the app have its code.
You can allow less than was asked, never more.`,
		Example: `  letterlock client --home ./alice authorize 'http://127.0.0.1:8080/oauth/authorize?...' --friend bob --actions send`,
		Args:    args(1, 1),
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
			if err := d.Sync(ctx); err != nil {
				return err
			}
			q, err := d.OpenConsent(ctx, a[0])
			if err != nil {
				return err
			}
			answer := device.Answer{Friend: friend, Progress: func(step string) { fmt.Fprintf(c.ErrOrStderr(), "  %s ...\n", step) }}
			if actions != "" {
				if answer.Actions, err = chat.ParseActions(strings.Split(actions, ",")); err != nil {
					return err
				}
				q = narrowed(q, answer.Actions)
			}
			if until != "" {
				if answer.Until, err = time.Parse("2006-01-02", until); err != nil {
					return fmt.Errorf("%w: --until wants a day like 2027-01-31", errUsage)
				}
			}
			if !yes && !refuse {
				if yes, err = askConsent(c, q); err != nil {
					return err
				}
			}
			if !yes {
				where, err := d.Refuse(ctx, q)
				return f.redirected(ctx, c, where, "Refused.", noOpen, err)
			}
			where, err := d.Allow(ctx, q, answer)
			return f.redirected(ctx, c, where, "Allowed. It stands in the ledger and in the thread.", noOpen, err)
		}),
	}
	c.Flags().StringVar(&friend, "friend", "", "the friend to share with, where the app lets you pick")
	c.Flags().StringVar(&actions, "actions", "", "allow only these, joined by commas: send,read,delete")
	c.Flags().StringVar(&until, "until", "", "let it end on this day (2027-01-31) instead of the asked one")
	c.Flags().BoolVar(&yes, "yes", false, "say yes without being asked")
	c.Flags().BoolVar(&refuse, "refuse", false, "say no without being asked")
	c.Flags().BoolVar(&noOpen, "no-open", false, "print the app's address instead of calling it")
	c.MarkFlagsMutuallyExclusive("yes", "refuse")
	return c
}

// narrowed shows the request as the person would allow it.
func narrowed(q *device.Consent, a chat.Actions) *device.Consent {
	n := *q
	n.Actions = q.Actions & a
	if n.Actions == 0 {
		n.Actions = a // Allow refuses it with a sentence
	}
	return &n
}

func askConsent(c *cobra.Command, q *device.Consent) (bool, error) {
	w := c.ErrOrStderr()
	fmt.Fprintf(w, "%s asks for permission:\n", q.Agreement.Name)
	for _, s := range q.Sentences() {
		fmt.Fprintf(w, "  - %s\n", s)
	}
	return askYes(c, "Allow? [y/N] ")
}

// redirected goes to the app's address as a browser would.
func (f *clientFlags) redirected(ctx context.Context, c *cobra.Command, where, said string, noOpen bool, err error) error {
	if err != nil {
		return err
	}
	if !noOpen {
		if err := visit(ctx, where); err != nil {
			fmt.Fprintf(c.ErrOrStderr(), "letterlock: the app did not answer (%v); open its address in a browser\n", err)
			noOpen = true
		}
	}
	return f.answer(c, map[string]any{"redirect": where, "opened": !noOpen}, func(w io.Writer) {
		fmt.Fprintln(w, said)
		if noOpen {
			fmt.Fprintln(w, where)
		}
	})
}

// visit opens an address once, without following it further.
func visit(ctx context.Context, where string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return nil
}

func (f *clientFlags) grantsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "grants", Short: "List who may do what in your conversations, whoever allowed it", Args: args(0, 0),
		Example: "  letterlock client --home ./alice grants",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, _ []string) error {
			if err := d.Sync(ctx); err != nil {
				return err
			}
			list, err := d.LiveGrants()
			if err != nil {
				return err
			}
			return f.answer(c, list, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "No partner app may do anything in your conversations.")
				}
				for _, g := range list {
					fmt.Fprintf(w, "%s  %s may %s, by %s, until %s\n", g.Grant, g.Name, strings.Join(g.Actions, ", "), g.By, stamp(g.Until))
				}
			})
		}),
	}
}

func (f *clientFlags) revokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke GRANT", Short: "End a permission, at once", Args: args(1, 1),
		Example: "  letterlock client --home ./alice grants\n  letterlock client --home ./alice revoke 00112233445566778899aabbccddeeff",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
			id, err := chat.ParseGrantID(a[0])
			if err != nil {
				return err
			}
			if err := d.Sync(ctx); err != nil {
				fmt.Fprintf(c.ErrOrStderr(), "letterlock: %v\n", err)
			}
			if err := d.Revoke(ctx, id); err != nil {
				return err
			}
			return f.answer(c, map[string]string{"revoked": id.String()}, func(w io.Writer) {
				fmt.Fprintln(w, "Ended. Nothing sent from here on opens for it. What it could read before, it may have kept.")
			})
		}),
	}
}

func (f *clientFlags) narrowCommand() *cobra.Command {
	var actions string
	c := &cobra.Command{
		Use: "narrow GRANT --actions LIST", Short: "Leave a permission fewer actions", Args: args(1, 1),
		Example: "  letterlock client --home ./alice narrow 00112233445566778899aabbccddeeff --actions send",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
			id, err := chat.ParseGrantID(a[0])
			if err != nil {
				return err
			}
			left, err := chat.ParseActions(strings.Split(actions, ","))
			if err != nil {
				return err
			}
			if err := d.Narrow(ctx, id, left); err != nil {
				return err
			}
			return f.answer(c, map[string]string{"grant": id.String(), "actions": left.String()}, func(w io.Writer) { fmt.Fprintf(w, "It may only %s now.\n", left) })
		}),
	}
	c.Flags().StringVar(&actions, "actions", "", "what is left, joined by commas: send,read,delete")
	return c
}

func (f *clientFlags) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "history [PARTNER]", Short: "Show what partner apps were allowed and what they did, each line proven against the ledger", Args: args(0, 1),
		Example: "  letterlock client --home ./alice history flimmer",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
			partners, err := partnersOf(ctx, d, a)
			if err != nil {
				return err
			}
			all := []device.HistoryEntry{}
			for _, p := range partners {
				entries, err := d.History(ctx, p)
				if err != nil {
					return err
				}
				all = append(all, entries...)
			}
			return f.answer(c, all, func(w io.Writer) {
				if len(all) == 0 {
					fmt.Fprintln(w, "Nothing: no partner app was ever allowed anything, and none did anything.")
				}
				for _, e := range all {
					proven := fmt.Sprintf("in the ledger, entry %d", e.Index)
					if !e.Proven {
						proven = "NOT YET IN THE LEDGER"
					}
					fmt.Fprintf(w, "%s  %s  (%s)\n", stamp(e.At), e.Text, proven)
				}
			})
		}),
	}
}

// partnersOf is the named partner, or every one that the server lists.
func partnersOf(ctx context.Context, d *device.Client, a []string) (ids []string, err error) {
	if len(a) == 1 {
		return a, chat.CheckPartner(a[0])
	}
	list, err := d.Partners(ctx)
	for _, p := range list {
		ids = append(ids, p.ID)
	}
	return ids, err
}

func (f *clientFlags) proofCommand() *cobra.Command {
	var out string
	var keys bool
	var told telling
	c := &cobra.Command{
		Use:   "proof PARTNER --out FILE",
		Short: "Write a file from which a stranger can check your history with a partner, offline",
		Long: `Writes a file that proves your whole history with a partner, or with --keys which devices were yours, and that nothing
was left out. It works for a partner with whom there never was anything, too. This device checks the file, and
holds it against what it remembers, before it writes it.`,
		Example: "  letterlock client --home ./alice proof flimmer --out alice-flimmer.json\n  letterlock client --home ./alice proof flimmer --out alice-flimmer.json --expect never\n" +
			"  letterlock client --home ./alice proof --keys --out alice-keys.json\n  letterlock verify alice-flimmer.json",
		Args: args(0, 1),
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
			if err := told.check(); err != nil {
				return err
			}
			partner, about := "", "keys"
			switch {
			case keys == (len(a) == 1):
				return fmt.Errorf("%w: name a partner, or say --keys", errUsage)
			case !keys:
				partner, about = a[0], a[0]
				if err := chat.CheckPartner(partner); err != nil {
					return err
				}
			}
			data, verdict, err := d.Proof(ctx, partner)
			if err != nil {
				return err
			}
			verdict.Speak(told.lang)
			if err := told.expected(verdict); err != nil {
				return err
			}
			if out == "" {
				out = fmt.Sprintf("%s-%s.json", d.Self().Handle, about)
			}
			if err := os.WriteFile(out, data, 0o600); err != nil {
				return chat.Wrap(chat.Invalid, err, "the file cannot be written")
			}
			return f.answer(c, map[string]any{"file": out, "verdict": verdict}, func(w io.Writer) {
				fmt.Fprintf(w, "%s\nWritten to %s. Anyone can check it: letterlock verify %s\nIt shows what this line says, with all that belongs to it; give it to people you trust with that.\n",
					verdict.Headline, out, out)
			})
		}),
	}
	c.Flags().StringVar(&out, "out", "", "the file to write (default HANDLE-PARTNER.json, or HANDLE-keys.json)")
	c.Flags().BoolVar(&keys, "keys", false, "prove your keys, and nothing else")
	told.flags(c)
	return c
}

func (f *clientFlags) appsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "apps", Short: "Say that you want no partner apps in your conversations, or take that back",
		Example: "  letterlock client --home ./bob apps refuse\n  letterlock client --home ./bob apps refuse flimmer\n  letterlock client --home ./bob apps accept flimmer",
	}
	set := func(use, short, said string, on bool) *cobra.Command {
		return &cobra.Command{
			Use: use + " [PARTNER]", Short: short, Args: args(0, 1),
			Example: "  letterlock client --home ./bob apps " + use + " flimmer",
			RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
				partner := ""
				if len(a) == 1 {
					partner = a[0]
				}
				if err := d.AddPreference(ctx, keychain.NoApps(partner, on)); err != nil {
					return err
				}
				if on {
					if err := d.DropRefusedApps(ctx); err != nil {
						return err
					}
				}
				return f.answer(c, map[string]any{"partner": partner, "refused": on}, func(w io.Writer) { fmt.Fprintln(w, said) })
			}),
		}
	}
	c.AddCommand(
		set("refuse", "No apps with me: all, or one", "Done. It stands in your key chain: others' clients and the server heed it, and apps that were there are removed.", true),
		set("accept", "Take a refusal back", "Done.", false),
	)
	return c
}
