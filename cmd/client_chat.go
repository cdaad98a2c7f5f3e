package cmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"letterlock/chat"
	"letterlock/device"
	"letterlock/mimi"
)

func (f *clientFlags) chatCommands() []*cobra.Command {
	return []*cobra.Command{
		f.listCommand(), f.sendCommand(), f.readCommand(), f.messageCommand(), f.expireCommand(), f.syncCommand(), f.evidenceCommand(),
	}
}

func (f *clientFlags) syncCommand() *cobra.Command {
	return &cobra.Command{
		Use: "sync", Short: "Fetch what is new and send what waits", Args: args(0, 0),
		Example: "  letterlock client --home ./alice sync",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, _ []string) error {
			if err := d.Sync(ctx); err != nil {
				return err
			}
			return f.overview(c, d)
		}),
	}
}

func (f *clientFlags) listCommand() *cobra.Command {
	return &cobra.Command{
		Use: "conversations", Aliases: []string{"list"}, Short: "List conversations and who can read them", Args: args(0, 0),
		Example: "  letterlock client --home ./alice conversations",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, _ []string) error {
			if err := d.Sync(ctx); err != nil {
				return err
			}
			return f.overview(c, d)
		}),
	}
}

func (f *clientFlags) overview(c *cobra.Command, d *device.Client) error {
	list, err := d.Conversations()
	if err != nil {
		return err
	}
	return f.answer(c, list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "No conversations yet. Write to a friend: letterlock client send HANDLE TEXT")
		}
		for _, o := range list {
			printOverview(w, o)
		}
	})
}

func printOverview(w io.Writer, o device.Overview) {
	who := strings.Join(o.People, ", ")
	if who == "" {
		who = "(nobody else)"
	}
	if o.Partner != "" {
		who += "/" + o.Partner
	}
	notes := []string{"private"}
	if o.Partner != "" {
		notes[0] = "thread made for " + o.Partner
	}
	if len(o.Readers) > 0 {
		notes = append(notes, strings.Join(o.Readers, ", ")+" can read it")
	}
	if o.Lifetime > 0 {
		notes = append(notes, "what you send disappears after "+lifetimeText(time.Duration(o.Lifetime)*time.Second))
	}
	for n, word := range map[int]string{o.Unread: "unread", o.Waiting - o.Held: "waiting to be sent", o.Held: "held back"} {
		if n > 0 {
			notes = append(notes, fmt.Sprintf("%d %s", n, word))
		}
	}
	if o.Left {
		notes = append(notes, "left")
	}
	fmt.Fprintf(w, "%-24s %s  %s\n", who, o.ID, strings.Join(notes, "; "))
	for _, app := range o.Apps {
		fmt.Fprintf(w, "    %s\n", app)
	}
	if o.Problem != "" {
		fmt.Fprintf(w, "    ! %s\n", o.Problem)
	}
}

func (f *clientFlags) sendCommand() *cobra.Command {
	var reply, edit, expires string
	c := &cobra.Command{
		Use: "send WHO TEXT", Short: "Write a message; the first one to a friend begins the conversation", Args: args(2, 2),
		Example: "  letterlock client --home ./alice send bob \"Have you seen it?\"\n  letterlock client --home ./alice send bob/flimmer \"Yes!\" --reply MESSAGE\n  letterlock client --home ./alice send bob \"The code is 4711\" --expires 1h",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
			if err := d.Sync(ctx); err != nil {
				fmt.Fprintf(c.ErrOrStderr(), "letterlock: %v\n", err)
			}
			content, err := compose(a[1], reply, edit)
			if err != nil {
				return err
			}
			if expires != "" {
				life, err := parseLifetime(expires)
				if err != nil {
					return err
				}
				content.Expires = mimi.ExpiresAt(time.Now().Add(life))
			}
			id, err := findConversation(d, a[0])
			if chat.Is(err, chat.NotFound) && !strings.Contains(a[0], "/") {
				id, err = d.With(ctx, a[0], "")
			}
			if err != nil {
				return err
			}
			s, err := d.Send(ctx, id, content)
			return f.sent(c, s, err)
		}),
	}
	c.Flags().StringVar(&reply, "reply", "", "id of the message this answers")
	c.Flags().StringVar(&edit, "edit", "", "id of your message that this text replaces")
	c.Flags().StringVar(&expires, "expires", "", "let it disappear after so long, for everybody: 30s, 10m, 1h, 7d, 2w")
	c.MarkFlagsMutuallyExclusive("reply", "edit")
	return c
}

func compose(text, reply, edit string) (mimi.Content, error) {
	switch {
	case reply != "":
		id, err := chat.ParseMessageID(reply)
		return mimi.Reply(id, text), err
	case edit != "":
		id, err := chat.ParseMessageID(edit)
		return mimi.Edit(id, text), err
	}
	return mimi.Text(text), nil
}

// sent tells what became of a message. One that waits is no failure of the person's: it is written down and goes out later.
func (f *clientFlags) sent(c *cobra.Command, s device.Sent, err error) error {
	if err != nil {
		if chat.Is(err, chat.Unavailable) && s.ID != (chat.MessageID{}) {
			return chat.Wrap(chat.Unavailable, err, "the message is written down and goes out with the next sync")
		}
		return err
	}
	return f.answer(c, s, func(w io.Writer) {
		if s.Held {
			fmt.Fprintf(w, "Held back: %s.\n    letterlock client message resend CONVERSATION %s\n", s.Reason, s.ID)
			return
		}
		fmt.Fprintf(w, "sent %s\n", s.ID)
	})
}

func (f *clientFlags) readCommand() *cobra.Command {
	r := &reading{flags: f}
	c := &cobra.Command{
		Use: "read WHO", Short: "Show a conversation", Args: args(1, 1),
		Example: "  letterlock client --home ./bob read alice\n  letterlock client --home ./bob read alice/flimmer --follow",
		RunE: func(c *cobra.Command, a []string) error {
			for {
				if err := f.with(r.show)(c, a); err != nil || !r.follow {
					return err
				}
				// The folder is free while we wait, so that other commands can use it.
				if err := r.wait(c.Context(), 30); err != nil {
					if c.Context().Err() != nil {
						return nil
					}
					return err
				}
			}
		},
	}
	c.Flags().BoolVar(&r.follow, "follow", false, "go on showing what comes in, until interrupted")
	c.Flags().BoolVar(&r.ids, "ids", false, "show the ids of messages")
	return c
}

// reading shows a conversation, and with follow what comes after.
type reading struct {
	flags       *clientFlags
	follow, ids bool
	shown       map[lineKey]bool
	wait        func(ctx context.Context, seconds int) error
}

// lineKey tells a line from the others, however it changes and whichever of them disappear meanwhile.
type lineKey struct {
	id   chat.MessageID
	seq  uint64
	text string
}

func keyOf(l device.Line) lineKey {
	switch {
	case l.ID != (chat.MessageID{}):
		return lineKey{id: l.ID}
	case l.Kind == "event":
		return lineKey{seq: l.Seq, text: l.Text}
	}
	return lineKey{seq: l.Seq}
}

// fresh picks the lines that were not shown yet.
func (r *reading) fresh(lines []device.Line) []device.Line {
	if r.shown == nil {
		r.shown = map[lineKey]bool{}
	}
	fresh := []device.Line{}
	for _, l := range lines {
		if k := keyOf(l); !r.shown[k] {
			r.shown[k] = true
			fresh = append(fresh, l)
		}
	}
	return fresh
}

func (r *reading) show(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
	if err := d.Sync(ctx); err != nil {
		fmt.Fprintf(c.ErrOrStderr(), "letterlock: %v\n", err)
	}
	id, err := findConversation(d, a[0])
	if err != nil {
		return err
	}
	lines, err := d.Lines(id)
	if err != nil {
		return err
	}
	fresh := r.fresh(lines)
	first := r.wait == nil
	if r.wait, err = d.Waiter(id); err != nil {
		return err
	}
	if len(fresh) == 0 && !first {
		return nil
	}
	return r.flags.answer(c, fresh, func(w io.Writer) {
		for _, l := range fresh {
			printLine(w, l, r.ids)
		}
	})
}

func printLine(w io.Writer, l device.Line, ids bool) {
	who := l.From
	if l.Through != "" {
		who += ", through " + l.Through
	}
	mark := ""
	if ids && l.Kind == "message" {
		mark = "  [" + l.ID.String() + "]"
	}
	switch {
	case l.Kind == "event" || l.Kind == "withheld" || l.Kind == "expired":
		fmt.Fprintf(w, "%s  -- %s\n", stamp(l.At), l.Text)
	case l.Deleted:
		fmt.Fprintf(w, "%s  %s: (deleted)%s\n", stamp(l.At), who, mark)
	default:
		state := ""
		if l.Edited {
			state = " (edited)"
		}
		if l.View != nil && l.View.Expires != nil && l.View.Expires.Time != 0 {
			state += " (" + expiryText(*l.View.Expires) + ")"
		}
		if l.Kind == "waiting" || l.Kind == "held" {
			state += " (" + l.Kind + ")"
		}
		fmt.Fprintf(w, "%s  %s: %s%s%s\n", stamp(l.At), who, viewText(l.View), state, mark)
	}
	for _, r := range l.Reactions {
		fmt.Fprintf(w, "                      %s %s\n", r.Emoji, r.From)
	}
}

func viewText(v *mimi.View) string {
	if v == nil {
		return ""
	}
	if v.Card != nil {
		s := "[" + v.Card.Kind.String() + "] " + v.Card.Title
		if v.Card.Subtitle != "" {
			s += ", " + v.Card.Subtitle
		}
		return s + "  " + v.Card.Link
	}
	return v.Text
}

func (f *clientFlags) messageCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "message", Short: "Delete, react to, send again or drop one message",
		Example: "  letterlock client --home ./alice message delete bob MESSAGE\n  letterlock client --home ./alice message react bob MESSAGE 👍",
	}
	one := func(use, short string, n int, run func(ctx context.Context, c *cobra.Command, d *device.Client, conv chat.ConversationID, m chat.MessageID, a []string) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: args(n, n),
			Example: "  letterlock client --home ./alice message " + use,
			RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
				conv, err := findConversation(d, a[0])
				if err != nil {
					return err
				}
				m, err := chat.ParseMessageID(a[1])
				if err != nil {
					return err
				}
				return run(ctx, c, d, conv, m, a)
			}),
		}
	}
	c.AddCommand(
		one("delete WHO MESSAGE", "Delete a message of yours, for everybody", 2, func(ctx context.Context, c *cobra.Command, d *device.Client, conv chat.ConversationID, m chat.MessageID, _ []string) error {
			s, err := d.DeleteMessage(ctx, conv, m)
			return f.sent(c, s, err)
		}),
		one("react WHO MESSAGE EMOJI", "React to a message", 3, func(ctx context.Context, c *cobra.Command, d *device.Client, conv chat.ConversationID, m chat.MessageID, a []string) error {
			content, err := mimi.Reaction(m, a[2])
			if err != nil {
				return err
			}
			s, err := d.Send(ctx, conv, content)
			return f.sent(c, s, err)
		}),
		one("resend WHO MESSAGE", "Send a held message after all", 2, func(ctx context.Context, c *cobra.Command, d *device.Client, conv chat.ConversationID, m chat.MessageID, _ []string) error {
			s, err := d.Resend(ctx, conv, m)
			return f.sent(c, s, err)
		}),
		one("withdraw WHO MESSAGE", "Drop a message that has not been sent", 2, func(_ context.Context, c *cobra.Command, d *device.Client, conv chat.ConversationID, m chat.MessageID, _ []string) error {
			if err := d.Withdraw(conv, m); err != nil {
				return err
			}
			return f.answer(c, struct{}{}, func(w io.Writer) { fmt.Fprintln(w, "dropped") })
		}),
	)
	return c
}

func (f *clientFlags) evidenceCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "evidence", Short: "Show the lies this device has caught, or write them into a file that others can check", Args: args(0, 0),
		Example: "  letterlock client --home ./alice evidence --json\n  letterlock client --home ./alice evidence --out lies.json\n  letterlock verify lies.json",
		RunE: f.with(func(_ context.Context, c *cobra.Command, d *device.Client, _ []string) error {
			list, err := d.ListEvidence()
			if err != nil {
				return err
			}
			if list == nil {
				list = []device.Evidence{}
			}
			if out != "" {
				return f.writeEvidence(c, d, out, len(list))
			}
			return f.answer(c, list, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "Nothing: nobody was caught lying.")
				}
				for _, e := range list {
					fmt.Fprintf(w, "%s  %s\n", stamp(e.At), e.Sentence)
				}
			})
		}),
	}
	c.Flags().StringVar(&out, "out", "", "write the evidence into this file")
	return c
}

func (f *clientFlags) writeEvidence(c *cobra.Command, d *device.Client, out string, lies int) error {
	file, err := d.EvidenceFile()
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, file, 0o600); err != nil {
		return chat.Wrap(chat.Invalid, err, "the file cannot be written")
	}
	return f.answer(c, map[string]any{"file": out, "lies": lies}, func(w io.Writer) {
		fmt.Fprintf(w, "%d written to %s. Anyone can check what of it convicts the ledger: letterlock verify %s\n", lies, out, out)
	})
}
