package cmd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"letterlock/agent"
	"letterlock/chat"
)

// agentFlags are those of every agent command.
type agentFlags struct {
	home       string
	json       bool
	secret     string
	passphrase string
}

// agentCommand is the partner's side.
func agentCommand() *cobra.Command {
	f := &agentFlags{}
	c := &cobra.Command{
		Use:   "agent",
		Short: "The partner's side: holds the keys, serves a local JSON API",
		Long: `The agent is a partner's own client. It keeps the keys that people's grants name, does all the cryptography, and gives
the partner's backend the same things in plaintext on localhost: POST /messages, GET /changes, DELETE /messages/{id}.

init makes a folder and two files: registration.json for the server's operator, letterlock-partner.json for the partner's own
domain. run serves the local API; the other commands talk to it.`,
		Example: `  letterlock agent --home ./flimmer init flimmer --name Flimmer --server http://127.0.0.1:8080
  letterlock agent --home ./flimmer run
  letterlock agent --home ./flimmer authorize --pick --actions send --for user-17`,
	}
	c.PersistentFlags().StringVar(&f.home, "home", os.Getenv("LETTERLOCK_AGENT_HOME"), "folder of the agent (LETTERLOCK_AGENT_HOME)")
	c.PersistentFlags().BoolVar(&f.json, "json", false, "print JSON")
	c.PersistentFlags().StringVar(&f.secret, "secret-file", "", "file with the local API's secret (default HOME/secret)")
	c.PersistentFlags().StringVar(&f.passphrase, "passphrase-file", "", "file with the passphrase of the folder's state, if it has one")
	c.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if f.home == "" && !c.HasSubCommands() {
			return fmt.Errorf("%w: name the agent's folder with --home DIR or LETTERLOCK_AGENT_HOME", errUsage)
		}
		return nil
	}
	c.AddCommand(agentInit(f), agentRun(f), agentAuthorize(f), agentSend(f), agentChanges(f), agentDelete(f), agentGrants(f), agentEnd(f), agentStatus(f))
	return c
}

// env is what an agent takes from this process.
func (f *agentFlags) env() agent.Env {
	e := agent.Env{Now: time.Now, Rand: rand.Reader, Wait: 2 * time.Second}
	if f.passphrase != "" {
		e.Passphrase = func() ([]byte, error) {
			b, err := os.ReadFile(f.passphrase)
			return bytes.TrimRight(b, "\r\n"), err
		}
	}
	return e
}

// print writes an answer as JSON, or as text for people.
func (f *agentFlags) print(c *cobra.Command, v any, text func(w io.Writer)) error {
	if !f.json {
		text(c.OutOrStdout())
		return nil
	}
	return json.NewEncoder(c.OutOrStdout()).Encode(v)
}

// ask calls the agent that runs on the folder.
func (f *agentFlags) ask(ctx context.Context, method, path string, in, out any) error {
	l, err := agent.Dial(f.home, f.secret)
	if err != nil {
		return err
	}
	return l.Do(ctx, method, path, in, out)
}

func agentInit(f *agentFlags) *cobra.Command {
	var o agent.Options
	var actions []string
	var days int
	c := &cobra.Command{
		Use:   "init PARTNER",
		Short: "Make a partner's folder, its keys and its registration",
		Long: `Makes root key, agent key and client key, asks the server once who it is and pins the answer, and signs the offer of an agreement.

HOME/root holds the root key alone; run does not need it. Move it off this machine once the operator has registered you.`,
		Example: `  letterlock agent --home ./flimmer init flimmer --name Flimmer --server http://127.0.0.1:8080 \
    --actions send,read,delete --report-days 14 --link-base https://flimmer.example/w/ --surface player,list`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			o.Partner, o.Valid = args[0], time.Duration(days)*24*time.Hour
			if o.Actions, err = chat.ParseActions(actions); err != nil {
				return err
			}
			r, err := agent.Init(c.Context(), f.home, o, f.env())
			if err != nil {
				return err
			}
			return f.print(c, r, func(w io.Writer) {
				fmt.Fprintf(w, "%s is ready.\n  for the operator:  %s   (letterlock admin partner add)\n  for your domain:   %s   (/.well-known/letterlock-partner)\n  keep offline:      %s\n",
					o.Partner, filepath.Join(f.home, agent.RegistrationFile), filepath.Join(f.home, agent.WellKnownFile), filepath.Join(f.home, "root"))
			})
		},
	}
	fl := c.Flags()
	fl.StringVar(&o.Server, "server", "", "public URL of the server")
	fl.StringVar(&o.Name, "name", "", "name of the app, for people")
	fl.StringSliceVar(&actions, "actions", []string{"send", "read", "delete"}, "what the agreement shall allow you to ask people for")
	fl.Uint64Var(&o.ReportDays, "report-days", 14, "days between reports; 0: none")
	fl.Uint64Var(&o.PostsPerMinute, "posts-per-minute", 60, "limit for each grant")
	fl.StringSliceVar(&o.LinkBases, "link-base", nil, "address under which share links lead to you")
	fl.StringSliceVar(&o.Interfaces, "interface", nil, "labels that messages may declare")
	fl.StringSliceVar(&o.Surfaces, "surface", nil, "labels that messages may declare")
	fl.StringSliceVar(&o.Variants, "variant", nil, "labels that messages may declare")
	fl.IntVar(&days, "valid-days", 365, "how long the agreement shall hold")
	fl.Uint64Var(&o.Number, "number", 1, "of the agreement; a newer one replaces an older one")
	fl.StringVar(&o.RedirectURI, "redirect", agent.DefaultRedirect, "where people come back: /callback of the local API, or a page of yours that passes the query on to it")
	c.MarkFlagRequired("server")
	c.MarkFlagRequired("name")
	return c
}

func agentRun(f *agentFlags) *cobra.Command {
	var listen string
	c := &cobra.Command{
		Use:   "run",
		Short: "Serve the local JSON API",
		Long: `Serves the local JSON API until it is interrupted. It listens on loopback or on a unix socket only, since what it answers is
plaintext; each call needs the header "Authorization: Bearer SECRET" with what HOME/secret holds.`,
		Example: `  letterlock agent --home ./flimmer run --listen 127.0.0.1:9090
  curl -H "Authorization: Bearer $(cat ./flimmer/secret)" http://127.0.0.1:9090/grants`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runAgent(c, f, listen) },
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:9090", "HOST:PORT on loopback, or unix:PATH")
	return c
}

func runAgent(c *cobra.Command, f *agentFlags, listen string) error {
	secret, err := agent.ReadSecret(f.home, f.secret)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
	a, err := agent.Open(f.home, f.env(), log)
	if err != nil {
		return err
	}
	defer a.Close()
	l, err := agent.Listen(listen)
	if err != nil {
		return err
	}
	forget, err := agent.Announce(f.home, l)
	if err != nil {
		l.Close()
		return err
	}
	defer forget()
	err = f.print(c, map[string]string{"listening": agent.AddressOf(l)}, func(w io.Writer) { fmt.Fprintf(w, "listening on %s\n", agent.AddressOf(l)) })
	if err != nil {
		return err
	}
	return a.Serve(c.Context(), l, secret)
}

func agentAuthorize(f *agentFlags) *cobra.Command {
	var in agent.NewAuthorization
	var thread, previous string
	var wait time.Duration
	c := &cobra.Command{
		Use:   "authorize",
		Short: "Ask a person for a grant",
		Long:  `Prints the address where the person decides. With --wait it then waits for the decision.`,
		Example: `  letterlock agent --home ./flimmer authorize --pick --actions send --for user-17
  letterlock agent --home ./flimmer authorize --previous GRANT --actions send,read,delete --wait 5m`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := optionalIDs(&in, thread, previous); err != nil {
				return err
			}
			var out agent.Authorization
			if err := f.ask(c.Context(), http.MethodPost, "/authorizations", in, &out); err != nil {
				return err
			}
			err := f.print(c, out, func(w io.Writer) {
				fmt.Fprintf(c.ErrOrStderr(), "Grant %s: the person decides at this address.\n", out.ID)
				fmt.Fprintln(w, out.URL)
			})
			if err != nil || wait == 0 {
				return err
			}
			return f.waitDecision(c, out.ID, wait)
		},
	}
	fl := c.Flags()
	fl.StringSliceVar(&in.Actions, "actions", []string{"send"}, "what to ask for: send, read, delete")
	fl.BoolVar(&in.Pick, "pick", false, "the person chooses a friend; a thread is made")
	fl.StringVar(&thread, "thread", "", "id of the thread")
	fl.StringVar(&previous, "previous", "", "id of the grant that the new one replaces, in its thread")
	fl.StringVar(&in.For, "for", "", "your own name of the person; it stays here")
	fl.IntVar(&in.ValidDays, "valid-days", 30, "how long the grant shall hold")
	fl.DurationVar(&wait, "wait", 0, "how long to wait for the decision")
	c.MarkFlagsMutuallyExclusive("pick", "thread", "previous")
	c.MarkFlagsOneRequired("pick", "thread", "previous")
	return c
}

func optionalIDs(in *agent.NewAuthorization, thread, previous string) error {
	if thread != "" {
		id, err := chat.ParseConversationID(thread)
		if err != nil {
			return err
		}
		in.Thread = &id
	}
	if previous != "" {
		id, err := chat.ParseGrantID(previous)
		if err != nil {
			return err
		}
		in.Previous = &id
	}
	return nil
}

// waitDecision asks every second how a request stands.
func (f *agentFlags) waitDecision(c *cobra.Command, id chat.GrantID, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(c.Context(), wait)
	defer cancel()
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		var out agent.Authorization
		if err := f.ask(ctx, http.MethodGet, "/authorizations/"+id.String(), nil, &out); err != nil {
			return err
		}
		switch out.Outcome {
		case agent.Granted:
			return f.print(c, out, func(w io.Writer) { fmt.Fprintf(w, "granted\n") })
		case agent.Refused, agent.Failed:
			return chat.Errorf(chat.Forbidden, "%s: %s", out.Outcome, out.Detail)
		}
		select {
		case <-ctx.Done():
			return chat.Errorf(chat.Unavailable, "nobody has decided yet: ask again with letterlock agent status")
		case <-t.C:
		}
	}
}

func agentSend(f *agentFlags) *cobra.Command {
	var in agent.NewMessage
	var card agent.Card
	var reply string
	c := &cobra.Command{
		Use:   "send GRANT [TEXT]",
		Short: "Send a text or a card for a person",
		Example: `  letterlock agent --home ./flimmer send GRANT "Have you seen it?"
  letterlock agent --home ./flimmer send GRANT --card film --title Metropolis --url 'https://flimmer.example/w/#metropolis' --link`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if in.Grant, err = chat.ParseGrantID(args[0]); err != nil {
				return err
			}
			if len(args) == 2 {
				in.Text = args[1]
			}
			if card.Kind != "" {
				in.Card = &card
			}
			if reply != "" {
				id, err := chat.ParseMessageID(reply)
				if err != nil {
					return err
				}
				in.InReplyTo = &id
			}
			var out agent.Sent
			if err := f.ask(c.Context(), http.MethodPost, "/messages", in, &out); err != nil {
				return err
			}
			return f.print(c, out, func(w io.Writer) { fmt.Fprintf(w, "sent: message %s is entry %d of the thread\n", out.ID, out.Seq) })
		},
	}
	fl := c.Flags()
	fl.StringVar(&card.Kind, "card", "", "send a card: film, track, folder or receipt")
	fl.StringVar(&card.Title, "title", "", "of the card")
	fl.StringVar(&card.Subtitle, "subtitle", "", "of the card")
	fl.StringVar(&card.URL, "url", "", "of the card; put what it is about after a #")
	fl.BoolVar(&in.Link, "link", false, "make the card's url a share link, which is counted")
	fl.StringVar(&in.Interface, "interface", "", "label")
	fl.StringVar(&in.Surface, "surface", "", "label")
	fl.StringVar(&in.Variant, "variant", "", "label")
	fl.StringVar(&reply, "reply-to", "", "message id that the text answers")
	fl.StringVar(&in.Key, "key", "", "idempotency key: the same again sends nothing twice")
	return c
}

func agentChanges(f *agentFlags) *cobra.Command {
	var since string
	c := &cobra.Command{
		Use:     "changes GRANT",
		Short:   "Read what changed in a thread",
		Example: `  letterlock agent --home ./flimmer changes GRANT --since STATE`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q := url.Values{"grant": {args[0]}, "since": {since}}
			var out agent.Changes
			if err := f.ask(c.Context(), http.MethodGet, "/changes?"+q.Encode(), nil, &out); err != nil {
				return err
			}
			return f.print(c, out, func(w io.Writer) {
				for _, m := range out.Messages {
					fmt.Fprintln(w, lineOf(m))
				}
				fmt.Fprintf(w, "state %s\n", out.State)
			})
		},
	}
	c.Flags().StringVar(&since, "since", "", "state that an earlier call printed; empty: from the first message")
	return c
}

// lineOf shows a message in one line.
func lineOf(m agent.Message) string {
	who := m.Sender
	if m.Through != "" {
		who += ", through " + m.Through
	}
	text := strings.ReplaceAll(m.Text, "\n", " / ")
	switch {
	case m.Deleted:
		text = "(deleted)"
	case m.Card != nil:
		text = fmt.Sprintf("[%s] %s %s", m.Card.Kind, m.Card.Title, m.Card.URL)
	}
	return fmt.Sprintf("%s  %s: %s", m.ID, who, text)
}

func agentDelete(f *agentFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "delete GRANT MESSAGE",
		Short:   "Take back a message that you sent for that person",
		Example: `  letterlock agent --home ./flimmer delete GRANT MESSAGE`,
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			q := url.Values{"grant": {args[0]}}
			if err := f.ask(c.Context(), http.MethodDelete, "/messages/"+url.PathEscape(args[1])+"?"+q.Encode(), nil, nil); err != nil {
				return err
			}
			return f.print(c, map[string]string{"deleted": args[1]}, func(w io.Writer) { fmt.Fprintln(w, "taken back") })
		},
	}
}

func agentGrants(f *agentFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "grants",
		Short:   "List the grants that this agent holds or held",
		Example: `  letterlock agent --home ./flimmer grants --json`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all := agent.GrantList{Grants: []agent.Grant{}}
			for after := ""; ; {
				var page agent.GrantList
				q := url.Values{"after": {after}, "limit": {"500"}}
				if err := f.ask(c.Context(), http.MethodGet, "/grants?"+q.Encode(), nil, &page); err != nil {
					return err
				}
				if len(page.Grants) == 0 {
					break
				}
				all.Grants = append(all.Grants, page.Grants...)
				after = page.Grants[len(page.Grants)-1].ID.String()
			}
			return f.print(c, all, func(w io.Writer) {
				for _, g := range all.Grants {
					fmt.Fprintln(w, grantLine(g))
				}
			})
		},
	}
}

func grantLine(g agent.Grant) string {
	s := fmt.Sprintf("%s  %s  %s by %s until %s", g.ID, g.Phase, strings.Join(g.Actions, ","), g.Handle, time.UnixMilli(g.Expiry).UTC().Format(time.DateOnly))
	if g.For != "" {
		s += "  for " + g.For
	}
	if g.Detail != "" {
		s += "  (" + g.Detail + ")"
	}
	return s
}

func agentEnd(f *agentFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "end GRANT",
		Short:   "Give a grant up and erase what is held under it",
		Example: `  letterlock agent --home ./flimmer end GRANT`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.ask(c.Context(), http.MethodDelete, "/grants/"+url.PathEscape(args[0]), nil, nil); err != nil {
				return err
			}
			return f.print(c, map[string]string{"ended": args[0]}, func(w io.Writer) { fmt.Fprintln(w, "erased") })
		},
	}
}

func agentStatus(f *agentFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "status [GRANT]",
		Short: "Ask the running agent how it is, or the server how a grant stands",
		Example: `  letterlock agent --home ./flimmer status
  letterlock agent --home ./flimmer status GRANT`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return f.grantStatus(c, args[0])
			}
			var h agent.Health
			if err := f.ask(c.Context(), http.MethodGet, "/healthz", nil, &h); err != nil {
				return err
			}
			var e agent.EvidenceList
			if err := f.ask(c.Context(), http.MethodGet, "/evidence", nil, &e); err != nil {
				return err
			}
			out := struct {
				agent.Health
				Evidence []agent.Evidence `json:"evidence"`
			}{h, e.Evidence}
			return f.print(c, out, func(w io.Writer) {
				fmt.Fprintf(w, "%s is running; its server is %s\n", h.Partner, h.Server)
				for _, e := range e.Evidence {
					fmt.Fprintf(w, "evidence of %s: %s\n", time.UnixMilli(e.At).UTC().Format(time.DateTime), e.Detail)
				}
			})
		},
	}
}

func (f *agentFlags) grantStatus(c *cobra.Command, id string) error {
	var g agent.Grant
	if err := f.ask(c.Context(), http.MethodGet, "/grants/"+url.PathEscape(id), nil, &g); err != nil {
		return err
	}
	return f.print(c, g, func(w io.Writer) { fmt.Fprintln(w, grantLine(g)) })
}
