package server

import (
	"context"
	"net/http"
	"net/url"

	"letterlock/httpd"
	"letterlock/ledger"
	"letterlock/logpage"
	"letterlock/proof"
)

// logPages are the pages under /log, which read what is published.
func logPages(c Config, public *url.URL, keys *ledger.Keys, log *ledger.Ledger) (http.Handler, error) {
	return logpage.Handler(logpage.Config{Source: publicEntries(log), Host: public.Host, PublicURL: public.String(), LedgerVKey: keys.LedgerVKey(),
		ServerKey: keys.ServerKey(), Now: c.Now, Fail: httpd.Refuser(c.Logger)})
}

// pageEntries is how many public entries the pages read at a time.
const pageEntries = 200

// publicEntries gives the pages what they show.
func publicEntries(log *ledger.Ledger) logpage.Source {
	return func(ctx context.Context, from uint64) (*proof.Head, []logpage.Entry, error) {
		head, list, err := log.PublicEntries(ctx, from, pageEntries)
		entries := make([]logpage.Entry, len(list))
		for i, e := range list {
			entries[i] = logpage.Entry{Index: e.Index, Leaf: e.Leaf}
		}
		return head, entries, err
	}
}
