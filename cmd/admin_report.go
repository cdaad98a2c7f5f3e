package cmd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/report"
)

// readFigures reads a partner's own figures.
func readFigures(path string) (*api.InboxFigures, error) {
	data, err := readBounded(path, 512<<10)
	if err != nil {
		return nil, err
	}
	var f api.InboxFigures
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the file holds no figures: it must be {\"figures\": [...]}")
	}
	return &f, nil
}

// putFigures hands in what a partner counted itself.
func (f *adminFlags) putFigures(ctx context.Context, partner, path string) error {
	figures, err := readFigures(path)
	if err != nil {
		return err
	}
	return f.call(ctx, http.MethodPost, "/partners/"+url.PathEscape(partner)+"/figures", figures, nil)
}

// printReport prints a report with its hash. The report's own bytes are what was hashed.
func printReport(c *cobra.Command, asJSON bool, got api.BuiltReport) error {
	var r report.Report
	if err := json.Unmarshal(got.Report, &r); err != nil {
		return chat.Wrap(chat.Incompatible, err, "the server's report cannot be read")
	}
	out := struct {
		Report json.RawMessage `json:"report"`
		SHA256 string          `json:"sha256"`
		Leaf   string          `json:"ledger_leaf"`
	}{got.Report, fmt.Sprintf("%x", got.Hash), fmt.Sprintf("%x", got.Leaf)}
	return answer(c, asJSON, out, func(w io.Writer) {
		fmt.Fprintf(w, "%s, %s to %s (counts below %d are withheld)\n", r.Partner, r.From, r.To, r.Threshold)
		fmt.Fprintf(w, "%-12s %-12s %-12s %-12s %-10s %22s %22s\n", "day", "interface", "surface", "variant", "recipient", "sends (partner's)", "clicks (partner's)")
		for _, d := range r.Days {
			for _, cell := range d.Cells {
				fmt.Fprintf(w, "%-12s %-12s %-12s %-12s %-10s %22s %22s\n", d.Day, cell.Interface, cell.Surface, cell.Variant, cell.Recipient, sum(cell.Sends), sum(cell.Clicks))
			}
		}
		fmt.Fprintf(w, "%-62s %22s %22s\n", "total", sum(r.Total.Sends), sum(r.Total.Clicks))
		fmt.Fprintf(w, "SHA-256 %s, in the ledger as %s\n", out.SHA256, out.Leaf)
	})
}

// sum shows a count beside the partner's own.
func sum(s report.Sum) string {
	if s.Withheld || s.Count == nil {
		return "withheld"
	}
	text := fmt.Sprint(*s.Count)
	switch {
	case s.Partner == nil:
		return text + " (-)"
	case s.Agrees != nil && *s.Agrees:
		return fmt.Sprintf("%s (%d)", text, *s.Partner)
	}
	return fmt.Sprintf("%s (%d, DIFFERS)", text, *s.Partner)
}

// readLine reads up to the next line feed, or to the end.
func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(r).ReadString('\n')
	if err == io.EOF {
		err = nil
	}
	return line, err
}
