package cmd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
)

// adminFlags are the flags that every admin command has.
type adminFlags struct {
	data string
	json bool
}

func adminCommand() *cobra.Command {
	f := &adminFlags{}
	c := &cobra.Command{
		Use:   "admin",
		Short: "Decide, as the operator, which partners may ask and who may come in",
		Long: `Talks to the running server over the socket in its data folder, which only its operator can open. What is decided here about
agreements is public: it stands in the ledger. What is decided about people is not.`,
		Example: `  letterlock admin --data ./data partner add ./flimmer/registration.json
  letterlock admin --data ./data partner stop flimmer --reason "posted advertisements"
  letterlock admin --data ./data report --partner flimmer
  letterlock admin --data ./data invite create --uses 5 --expires 14d
  letterlock admin --data ./data account block bob --reason "sent advertisements"`,
	}
	c.PersistentFlags().StringVar(&f.data, "data", os.Getenv("LETTERLOCK_DATA"), "the server's data folder (LETTERLOCK_DATA)")
	c.PersistentFlags().BoolVar(&f.json, "json", false, "answer in JSON")
	c.MarkPersistentFlagDirname("data")
	c.AddCommand(f.partnerCommand(), f.agreementCommand(), f.reportCommand(), f.inviteCommand(), f.accountCommand(), f.releaseCommand(), f.statusCommand(), f.compactCommand())
	return c
}

// call asks the server over its admin socket.
func (f *adminFlags) call(ctx context.Context, method, path string, in, out any) error {
	if f.data == "" {
		return fmt.Errorf("%w: name the server's data folder with --data DIR or LETTERLOCK_DATA", errUsage)
	}
	client := adminClient(f.data)
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin/admin/v1"+path, &body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return chat.Wrap(chat.Unavailable, err, "no server runs on %s: start it with letterlock serve --data %s", f.data, f.data)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return problemOf(resp)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// adminClient speaks to the admin socket in a data folder.
func adminClient(data string) *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(data, "admin.sock"))
	}}}
}

// problemOf reads an RFC 9457 answer.
func problemOf(resp *http.Response) error {
	var p struct{ Type, Detail string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&p); err != nil {
		return chat.Errorf(chat.Internal, "the server answered %s", resp.Status)
	}
	return chat.Errorf(chat.Kind(strings.TrimPrefix(p.Type, "urn:letterlock:")), "%s", p.Detail)
}

func (f *adminFlags) partnerCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "partner", Short: "Partners: add, list, stop, resume",
		Example: "  letterlock admin --data ./data partner list",
	}
	c.AddCommand(f.addCommand("add FILE", "Register a partner's app and countersign its agreement"), f.listPartnersCommand(), f.stopCommand(), f.resumeCommand())
	return c
}

func (f *adminFlags) agreementCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "agreement", Short: "Agreements: show one, accept a newer one",
		Example: "  letterlock admin --data ./data agreement show flimmer",
	}
	show := &cobra.Command{
		Use: "show PARTNER", Short: "Show the agreement in force", Args: args(1, 1),
		Example: "  letterlock admin --data ./data agreement show flimmer --json",
		RunE: func(c *cobra.Command, a []string) error {
			var got api.AgreementInForce
			if err := f.call(c.Context(), http.MethodGet, "/partners/"+url.PathEscape(a[0]), nil, &got); err != nil {
				return err
			}
			return answer(c, f.json, got, func(w io.Writer) { printAgreement(w, got) })
		},
	}
	c.AddCommand(show, f.addCommand("accept FILE", "Countersign a newer agreement; grants under the old one end"))
	return c
}

func printAgreement(w io.Writer, a api.AgreementInForce) {
	state := "in force"
	if !a.Active {
		state = "not in force"
	}
	if a.Stopped {
		state = "STOPPED"
	}
	fmt.Fprintf(w, "%s (%s), agreement %d, %s\n", a.Name, a.Partner, a.Number, state)
	fmt.Fprintf(w, "  may ask people for  %s\n", strings.Join(a.Actions, ", "))
	fmt.Fprintf(w, "  limit               %d posts a minute for each grant\n", a.PostsPerMinute)
	if a.ReportDays > 0 {
		fmt.Fprintf(w, "  owes                a report every %d days\n", a.ReportDays)
	}
	if len(a.LinkBases) > 0 {
		fmt.Fprintf(w, "  links lead under    %s\n", strings.Join(a.LinkBases, ", "))
	}
	fmt.Fprintf(w, "  from, until         %s, %s\n", stamp(a.NotBefore), stamp(a.NotAfter))
	fmt.Fprintf(w, "  root key            %x\n", a.RootKey)
	fmt.Fprintf(w, "  in the ledger as    %x\n", a.Leaf)
	fmt.Fprintf(w, "  live grants         %d\n", a.LiveGrants)
}

// addCommand reads a registration, shows what it would allow, and hands it in.
func (f *adminFlags) addCommand(use, short string) *cobra.Command {
	var yes bool
	var domainFile, domain string
	c := &cobra.Command{
		Use: use, Short: short, Args: args(1, 1),
		Long:    short + ".\n\nThe file is the registration.json that `letterlock agent init` wrote for the partner. What the agreement allows is shown\nfirst, and becomes public in the ledger. Compare the root key with the one that the partner's own domain serves:\n--domain fetches it from there, --domain-file takes the letterlock-partner.json that you fetched.",
		Example: "  letterlock admin --data ./data partner add ./flimmer/registration.json\n  letterlock admin --data ./data partner add registration.json --domain flimmer.example --yes",
		RunE: func(c *cobra.Command, a []string) error {
			r, err := readRegistration(a[0])
			if err != nil {
				return err
			}
			in := api.AcceptAgreement{Registration: *r}
			offer, err := openOffer(r)
			if err != nil {
				return err
			}
			if in.DomainKey, err = domainKey(c.Context(), domain, domainFile, r.Partner); err != nil {
				return err
			}
			if offer != nil && in.DomainKey != nil && !bytes.Equal(in.DomainKey, offer.RootKey[:]) {
				return chat.Errorf(chat.Tampered, "the key that the partner's domain serves is not the one in the registration")
			}
			if !yes && offer != nil {
				showOffer(c.ErrOrStderr(), offer)
				if ok, err := askYes(c, "Countersign it? [y/N] "); err != nil || !ok {
					return err
				}
			}
			var got api.AgreementInForce
			if err := f.call(c.Context(), http.MethodPost, "/partners", in, &got); err != nil {
				return err
			}
			return answer(c, f.json, got, func(w io.Writer) { printAgreement(w, got) })
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().StringVar(&domain, "domain", "", "the partner's own domain: compare the root key that it serves at /.well-known/letterlock-partner")
	c.Flags().StringVar(&domainFile, "domain-file", "", "the letterlock-partner.json that the partner's domain serves, to compare the root key")
	c.MarkFlagsMutuallyExclusive("domain", "domain-file")
	return c
}

func readRegistration(path string) (*api.Registration, error) {
	data, err := readBounded(path, 128<<10)
	if err != nil {
		return nil, err
	}
	var r api.Registration
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the file is not a registration that `letterlock agent init` wrote")
	}
	return &r, nil
}

func openOffer(r *api.Registration) (*grant.Agreement, error) {
	if len(r.Offer) == 0 {
		return nil, nil
	}
	return grant.OpenOffer(r.Offer)
}

// maxDomainFile is the most that is read of what a partner's domain serves, in bytes.
const maxDomainFile = 16 << 10

// domainKey reads the root key that a partner's domain serves, from there or from a file; nil if neither is named.
func domainKey(ctx context.Context, domain, file, partner string) (key []byte, err error) {
	var data []byte
	switch {
	case domain != "":
		data, err = fetchDomain(ctx, domain)
	case file != "":
		data, err = readBounded(file, maxDomainFile)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f struct {
		Partner string `json:"partner"`
		RootKey []byte `json:"root_key"`
	}
	if err := json.Unmarshal(data, &f); err != nil || len(f.RootKey) != ed25519.PublicKeySize || f.Partner != partner {
		return nil, chat.Errorf(chat.Invalid, "the domain's file holds no root key of %s", partner)
	}
	return f.RootKey, nil
}

// fetchDomain reads the partner's file from its own domain. A redirect is refused: it would be another's word.
func fetchDomain(ctx context.Context, domain string) ([]byte, error) {
	if err := chat.CheckHost(domain); err != nil {
		return nil, err
	}
	client := http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+domain+"/.well-known/letterlock-partner", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, chat.Wrap(chat.Unavailable, err, "%s could not be reached", domain)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, chat.Errorf(chat.Invalid, "%s serves no /.well-known/letterlock-partner: %s", domain, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxDomainFile+1))
	if err == nil && len(data) > maxDomainFile {
		err = chat.Errorf(chat.TooLarge, "%s serves more than %d bytes", domain, maxDomainFile)
	}
	return data, err
}

func showOffer(w io.Writer, a *grant.Agreement) {
	fmt.Fprintf(w, "%s (%s) may ask people for: %s\n", a.Name, a.Partner, a.Actions)
	fmt.Fprintf(w, "  until %s, at most %d posts a minute for each grant, a report every %d days\n", stamp(a.NotAfter), a.PostsPerMinute, a.ReportDays)
	fmt.Fprintf(w, "  root key %x\n", a.RootKey)
}

// askYes asks a question; anything but yes is no.
func askYes(c *cobra.Command, question string) (bool, error) {
	fmt.Fprint(c.ErrOrStderr(), question)
	line, err := readLine(c.InOrStdin())
	if err != nil {
		return false, err
	}
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes", nil
}

func (f *adminFlags) listPartnersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List partners and their agreements", Args: args(0, 0),
		Example: "  letterlock admin --data ./data partner list",
		RunE: func(c *cobra.Command, _ []string) error {
			var got api.AgreementList
			if err := f.call(c.Context(), http.MethodGet, "/partners", nil, &got); err != nil {
				return err
			}
			return answer(c, f.json, got, func(w io.Writer) {
				if len(got.Agreements) == 0 {
					fmt.Fprintln(w, "No partner yet. Add one: letterlock admin partner add registration.json")
				}
				for _, a := range got.Agreements {
					printAgreement(w, a)
				}
			})
		},
	}
}

func (f *adminFlags) stopCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "stop PARTNER", Short: "Stop a partner at once: every grant ends, every leaf goes, and the ledger says so", Args: args(1, 1),
		Example: "  letterlock admin --data ./data partner stop flimmer --reason \"posted advertisements\"",
		RunE: func(c *cobra.Command, a []string) error {
			if err := f.call(c.Context(), http.MethodPost, "/partners/"+url.PathEscape(a[0])+"/stop", api.StopPartner{Reason: reason}, nil); err != nil {
				return err
			}
			return answer(c, f.json, map[string]string{"stopped": a[0]}, func(w io.Writer) { fmt.Fprintf(w, "%s is stopped. Its grants have ended.\n", a[0]) })
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; public, in the ledger")
	return c
}

func (f *adminFlags) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume PARTNER", Short: "Let a stopped partner ask again; ended grants stay ended", Args: args(1, 1),
		Example: "  letterlock admin --data ./data partner resume flimmer",
		RunE: func(c *cobra.Command, a []string) error {
			if err := f.call(c.Context(), http.MethodPost, "/partners/"+url.PathEscape(a[0])+"/resume", nil, nil); err != nil {
				return err
			}
			return answer(c, f.json, map[string]string{"resumed": a[0]}, func(w io.Writer) { fmt.Fprintf(w, "%s may ask again.\n", a[0]) })
		},
	}
}

func (f *adminFlags) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say how the server's durable work stands", Args: args(0, 0),
		Example: "  letterlock admin --data ./data status",
		RunE: func(c *cobra.Command, _ []string) error {
			var got api.Status
			if err := f.call(c.Context(), http.MethodGet, "/status", nil, &got); err != nil {
				return err
			}
			return answer(c, f.json, got, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %d partners, %d entries in the ledger, %d waiting to enter it, %d waiting for witnesses\nthe ledger's key: %s\n",
					got.Host, got.Partners, got.LedgerSize, got.Outbox, got.Unsigned, got.LedgerVKey)
			})
		},
	}
}

func (f *adminFlags) reportCommand() *cobra.Command {
	var q api.ReportQuery
	var figures string
	c := &cobra.Command{
		Use: "report --partner ID", Short: "Build the fortnight's report of a partner and put its hash into the ledger", Args: args(0, 0),
		Example: "  letterlock admin --data ./data report --partner flimmer\n  letterlock admin --data ./data report --partner flimmer --from 2026-11-02 --json",
		RunE: func(c *cobra.Command, _ []string) error {
			if figures != "" {
				if err := f.putFigures(c.Context(), q.Partner, figures); err != nil {
					return err
				}
			}
			var got api.BuiltReport
			if err := f.call(c.Context(), http.MethodPost, "/reports", q, &got); err != nil {
				return err
			}
			return printReport(c, f.json, got)
		},
	}
	c.Flags().StringVar(&q.Partner, "partner", "", "the partner")
	c.Flags().StringVar(&q.From, "from", "", "first day of the fortnight, like 2026-11-02 (default: the one that today is in)")
	c.Flags().Uint64Var(&q.Threshold, "threshold", 0, "smallest count that is shown (default 5)")
	c.Flags().StringVar(&figures, "figures", "", "set these figures of the partner's own beside ours: a JSON file {\"figures\": [...]}")
	c.MarkFlagRequired("partner")
	return c
}
