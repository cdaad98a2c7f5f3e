package cmd

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"letterlock/chat"
	"letterlock/device"
	"letterlock/mimi"
)

func (f *clientFlags) expireCommand() *cobra.Command {
	return &cobra.Command{
		Use: "expire WHO [LIFETIME|off]", Short: "Let what you send in a conversation disappear after so long", Args: args(1, 2),
		Long: `Every message that this device sends to the conversation from now on disappears after LIFETIME (30s, 10m, 1h, 7d, 2w): from the
server, and from the devices of everybody in it, as far as their clients honour it. What was sent before stays as it is. The setting
is this device's own: the others in the conversation see it on each message and set their own. Without LIFETIME: show it.`,
		Example: "  letterlock client --home ./alice expire bob 7d\n  letterlock client --home ./alice expire bob off",
		RunE: f.with(func(_ context.Context, c *cobra.Command, d *device.Client, a []string) error {
			id, err := findConversation(d, a[0])
			if err != nil {
				return err
			}
			if len(a) == 2 {
				life := time.Duration(0)
				if a[1] != "off" {
					if life, err = parseLifetime(a[1]); err != nil {
						return err
					}
				}
				if err := d.SetLifetime(id, life); err != nil {
					return err
				}
			}
			life, err := d.Lifetime(id)
			if err != nil {
				return err
			}
			out := struct {
				Conversation chat.ConversationID `json:"conversation"`
				Lifetime     int64               `json:"lifetime"` // seconds; 0: off
			}{id, int64(life / time.Second)}
			return f.answer(c, out, func(w io.Writer) {
				if life == 0 {
					fmt.Fprintln(w, "What you send here stays.")
					return
				}
				fmt.Fprintf(w, "What you send here disappears after %s.\n", lifetimeText(life))
			})
		}),
	}
}

// parseLifetime reads how long a message lives: a Go duration, or whole days (7d) or weeks (2w).
func parseLifetime(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if n := len(s) - 1; err != nil && n > 0 && (s[n] == 'd' || s[n] == 'w') {
		var count uint64
		if count, err = strconv.ParseUint(s[:n], 10, 16); err == nil {
			d = time.Duration(count) * 24 * time.Hour
			if s[n] == 'w' {
				d *= 7
			}
		}
	}
	if err != nil {
		return 0, fmt.Errorf("%w: a lifetime is written like 30s, 10m, 1h, 7d or 2w, not %q", errUsage, s)
	}
	return d, device.CheckLifetime(d)
}

// lifetimeText is a lifetime as parseLifetime reads it.
func lifetimeText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

func expiryText(e mimi.Expiration) string {
	if e.Relative {
		return "disappears " + lifetimeText(time.Duration(e.Time)*time.Second) + " after it was read"
	}
	return "disappears " + stamp(int64(e.Time)*1000)
}
