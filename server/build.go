package server

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"letterlock/account"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/delivery"
	"letterlock/dpop"
	"letterlock/httpd"
	"letterlock/inbox"
	"letterlock/ledger"
	"letterlock/oauth"
	"letterlock/report"
	"letterlock/store"
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
	keys, err := ledger.LoadKeys(filepath.Join(c.DataDir, keysName), public.Host)
	if err != nil {
		return nil, err
	}
	if c.Database == "" {
		if err := lostDatabase(c.DataDir); err != nil {
			return nil, err
		}
	}
	if p.store, err = openStore(ctx, c.DataDir, c.Database); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.store.Close()
		}
	}()
	disk := watchDisk(p.store, c.DataDir, c.Logger)
	log, err := ledger.OpenPublished(ctx, p.store, keys, filepath.Join(c.DataDir, publishedName), c.Now, rand.Reader)
	if err != nil {
		return nil, err
	}
	who := api.Server{Version: c.Version, Host: public.Host, PublicURL: public.String(), ServerKey: keys.ServerKey(),
		LedgerVKey: keys.LedgerVKey(), VRFKey: keys.VRFKey()}
	pages, err := logPages(c, public, keys, log)
	if err != nil {
		return nil, err
	}
	proofs := dpop.NewVerifier(c.Now)
	accounts := account.New(account.Config{Server: who, Store: p.store, Ledger: log, Verifier: proofs, Now: c.Now, Rand: rand.Reader,
		Registration: c.Registration, MaxFriends: c.MaxFriends})
	p.delivery = delivery.New(delivery.Config{Store: p.store, People: people{accounts}, Host: public.Host, ServerKey: keys.Server, Now: c.Now,
		Logger: c.Logger, Appenders: appenders(c.Database), ObserveBatch: p.metrics.observeBatch, Limits: c.Limits})
	p.metrics.watch(p.delivery)
	reports := &report.Service{Store: p.store, Ledger: log, PublicURL: public.String(), Now: c.Now, Rand: rand.Reader}
	permission, tokens, err := buildPermission(c, p, public, keys, log, accounts, proofs, reports)
	if err != nil {
		return nil, err
	}
	accounts.Hooks = p.accountHooks(ctx, c.Logger, permission)
	publisher, err := ledger.NewPublisher(log, c.Policy, c.Logger)
	if err != nil {
		return nil, err
	}
	p.metrics.watchLedger(log)
	writer := ledger.NewWriter(log, c.Logger)
	p.jobs = append(p.jobs, func(ctx context.Context) {
		if err := writer.Run(ctx); err != nil {
			c.Logger.Error("ALARM: the ledger stopped", slog.Any("error", err))
		}
	})
	p.jobs = append(p.jobs, publisher.Run, giveMemoryBack, permission.Run, p.delivery.RunSweep, hourly(c.Logger, "sessions", accounts.Sweep), hourly(c.Logger, "tokens", tokens.Sweep))
	p.handler = disk.health(httpd.New(httpd.Config{PublicURL: public.String(),
		Accounts: accounts, Conversations: p.delivery, Permission: permission, Inbox: permission, Links: reports,
		Sessions: accounts, Agents: tokens, OAuth: tokens.Handler(), Log: ledger.Handler(log, httpd.Refuser(c.Logger)), Live: p.delivery.Open,
		Pages: pages, Logger: c.Logger, Now: c.Now, ExemptLoopback: c.ExemptLoopback}))
	admin := http.NewServeMux()
	p.metrics.routes(admin)
	httpd.RouteAdmin(admin, permission, c.Logger)
	httpd.RouteAccountAdmin(admin, accounts, c.Logger)
	httpd.RouteReleases(admin, log, c.Logger)
	p.adminHandler = disk.health(admin)
	return p, nil
}

// lostDatabase refuses to begin an empty database where a ledger was published.
func lostDatabase(dir string) error {
	_, gone := os.Stat(filepath.Join(dir, databaseName))
	_, err := os.Stat(filepath.Join(dir, publishedName))
	if err == nil && errors.Is(gone, fs.ErrNotExist) {
		return chat.Errorf(chat.Tampered, "the database of this server is gone (%s), and its ledger was published: bring the file back, or run letterlock restore BACKUP "+
			"--data %s", filepath.Join(dir, databaseName), dir)
	}
	return nil
}

// buildPermission introduces inbox and oauth to each other and to delivery: inbox asks oauth about consent requests and ends its tokens, oauth asks
// inbox whether a partner may ask, delivery asks inbox about every commit.
func buildPermission(c Config, p *parts, public *url.URL, keys *ledger.Keys, log *ledger.Ledger, accounts *account.Service, proofs *dpop.Verifier,
	reports *report.Service) (*inbox.Service, *oauth.Service, error) {
	var permission *inbox.Service
	tokens, err := oauth.New(oauth.Config{Issuer: public.String(), Store: p.store, Verifier: proofs,
		Judge:  func(tx *store.Tx, r api.ConsentRequest) error { return permission.JudgeRequest(tx, r) },
		Logger: c.Logger, Now: c.Now, Rand: rand.Reader})
	if err != nil {
		return nil, nil, err
	}
	permission, err = inbox.New(inbox.Config{Host: public.Host, Store: p.store, People: accounts, Delivery: p.delivery, Ledger: log, Keys: keys,
		OAuth: tokens, Reports: reports, Now: c.Now, Rand: rand.Reader, Logger: c.Logger})
	if err != nil {
		return nil, nil, err
	}
	p.delivery.SetHooks(permission.Hooks())
	return permission, tokens, nil
}

// accountHooks tell everybody concerned that a key chain has grown.
func (p *parts) accountHooks(ctx context.Context, logger *slog.Logger, permission *inbox.Service) account.Hooks {
	return account.Hooks{
		DeviceRemoved: func(tx *store.Tx, a chat.AccountID, d chat.DeviceID, stolen bool) error {
			return errors.Join(tx.EmptyMailbox(store.DeviceMailbox(a, d)), permission.DeviceRemoved(tx, a, d, stolen))
		},
		PreferencesChanged: permission.PreferencesChanged,
		Blocked:            p.delivery.AccountBlocked,
		ChainChanged: func(a chat.AccountID) {
			permission.ChainChanged(a)
			go func() {
				if err := p.delivery.KeyChainChanged(context.WithoutCancel(ctx), a); err != nil {
					logger.Error("following a key chain", slog.Any("error", err))
				}
			}()
		},
	}
}

// hourly runs a clean-up at the start and every hour.
func hourly(logger *slog.Logger, what string, sweep func(context.Context) error) func(context.Context) {
	return func(ctx context.Context) {
		t := time.NewTicker(time.Hour)
		defer t.Stop()
		for {
			if err := sweep(ctx); err != nil && ctx.Err() == nil {
				logger.Error("cleaning up", slog.String("what", what), slog.Any("error", err))
			}
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	}
}

// appenders is how many write at once: SQLite has one writer, PostgreSQL gains by a second and nothing by a third.
func appenders(database string) int {
	if database == "" {
		return 1
	}
	return 2
}
