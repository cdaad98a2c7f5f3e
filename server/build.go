package server

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"

	"letterlock/account"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/delivery"
	"letterlock/dpop"
	"letterlock/httpd"
	"letterlock/ledger"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// parts is a built server without its listeners.
type parts struct {
	store        *store.Store
	delivery     *delivery.Service
	handler      http.Handler
	adminHandler http.Handler
	metrics      *metrics
	jobs         []func(context.Context) // each runs until its context ends
}

// build makes every part and introduces them to each other, from the disk upwards.
func build(ctx context.Context, c Config, public *url.URL) (_ *parts, err error) {
	p := &parts{metrics: newMetrics()}
	keys, err := ledger.LoadKeys(filepath.Join(c.DataDir, "keys"), public.Host)
	if err != nil {
		return nil, err
	}
	if p.store, err = sqlite.Open(ctx, filepath.Join(c.DataDir, "letterlock.db")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.store.Close()
		}
	}()
	log, err := ledger.Open(ctx, p.store, keys, c.Now, rand.Reader)
	if err != nil {
		return nil, err
	}
	who := api.Server{Version: c.Version, Host: public.Host, PublicURL: public.String(), ServerKey: keys.ServerKey(),
		LedgerVKey: keys.LedgerVKey(), VRFKey: keys.VRFKey()}
	accounts := account.New(account.Config{Server: who, Store: p.store, Verifier: dpop.NewVerifier(c.Now), Now: c.Now, Rand: rand.Reader})
	p.delivery = delivery.New(delivery.Config{Store: p.store, People: people{accounts}, Host: public.Host, ServerKey: keys.Server, Now: c.Now,
		Logger: c.Logger, ObserveBatch: p.metrics.observeBatch})
	p.metrics.watch(p.delivery)
	accounts.Hooks = account.Hooks{
		DeviceRemoved: func(tx *store.Tx, a chat.AccountID, d chat.DeviceID, stolen bool) error {
			return tx.EmptyMailbox(store.DeviceMailbox(a, d))
		},
		ChainChanged: func(a chat.AccountID) {
			go func() {
				if err := p.delivery.KeyChainChanged(context.WithoutCancel(ctx), a); err != nil {
					c.Logger.Error("following a key chain", slog.Any("error", err))
				}
			}()
		},
	}
	writer := ledger.NewWriter(log, c.Logger)
	p.jobs = append(p.jobs, func(ctx context.Context) {
		if err := writer.Run(ctx); err != nil {
			c.Logger.Error("ALARM: the ledger stopped", slog.Any("error", err))
		}
	})
	p.handler = withHealth(httpd.New(httpd.Config{PublicURL: public.String(), Accounts: accounts, Conversations: p.delivery, Sessions: accounts,
		Live: p.delivery.Open, Log: ledger.Handler(log, httpd.Refuser(c.Logger)), Logger: c.Logger, Now: c.Now, ExemptLoopback: c.ExemptLoopback}))
	admin := http.NewServeMux()
	p.metrics.routes(admin)
	p.adminHandler = withHealth(admin)
	return p, nil
}

// withHealth answers /healthz: the process lives and takes requests.
func withHealth(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.Handle("/", next)
	return mux
}
