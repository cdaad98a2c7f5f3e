package audit

import (
	"context"
	"encoding/base64"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"letterlock/chat"
)

const (
	// maxRootAge is how old the newest published map root may be: a server makes one every half hour at the latest.
	maxRootAge = time.Hour
	// PollTime is how often Run looks at the published checkpoint.
	PollTime = time.Minute
)

// Report says what an audit of the published log found.
type Report struct {
	Log        string `json:"log"`  // its origin
	Size       int64  `json:"size"` // entries of the published tree
	Root       string `json:"root"` // in base64
	Read       int64  `json:"read"` // entries that were read over the network for this report
	Labels     int    `json:"labels"`
	Public     int    `json:"public"`
	Agreements int    `json:"agreements"`
	Partners   int    `json:"partners"`
	MapRoot    string `json:"map_root"`    // in base64
	MapRootAt  int64  `json:"map_root_at"` // ms, the server's clock
	Stale      bool   `json:"stale"`       // that is more than an hour ago
}

// Published audits the newest published checkpoint. Errors are those of Audit.
func (a *Auditor) Published(ctx context.Context) (Report, error) {
	c, err := a.log.checkpoint(ctx)
	if err != nil {
		return Report{}, err
	}
	before := a.judged()
	root, err := a.Audit(ctx, c)
	if err != nil {
		return Report{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.replay
	return Report{
		Log: a.log.verifier.Name(), Size: c.Size, Root: base64.StdEncoding.EncodeToString(c.Root[:]), Read: r.size - before,
		Labels: len(r.labels.leaves), Public: len(r.public), Agreements: len(r.agreements), Partners: len(r.partners),
		MapRoot: base64.StdEncoding.EncodeToString(root.Root[:]), MapRootAt: root.At,
		Stale: a.config.Now().Sub(time.UnixMilli(root.At)) > maxRootAge,
	}, nil
}

func (a *Auditor) judged() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.replay.size
}

// Stopped is the lie that stopped the auditor for good, or nil.
func (a *Auditor) Stopped() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopped
}

// StaleRoot is the error of a report that is Stale.
func StaleRoot(r Report, now time.Time) error {
	return chat.Errorf(chat.Unproven, "the newest map root that the log shows is %s old: it should never be older than an hour",
		now.Sub(time.UnixMilli(r.MapRootAt)).Round(time.Minute))
}

// Watcher follows the published log of an Auditor, and says what it sees in a log and in metrics.
type Watcher struct {
	auditor *Auditor
	log     *slog.Logger

	size, rootAt, failures atomic.Int64
}

// NewWatcher makes a watcher whose metrics are in reg.
func NewWatcher(a *Auditor, log *slog.Logger, reg prometheus.Registerer) *Watcher {
	w := &Watcher{auditor: a, log: log}
	for name, m := range map[string]struct {
		help  string
		value *atomic.Int64
	}{
		"letterlock_audit_size":                 {"Entries of the published tree that was audited last.", &w.size},
		"letterlock_audit_map_root_timestamp":   {"Time of the newest published map root, milliseconds since 1970.", &w.rootAt},
		"letterlock_audit_consecutive_failures": {"Looks at the log that failed, since the last one that did not.", &w.failures},
	} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: m.help}, func() float64 { return float64(m.value.Load()) }))
	}
	return w
}

// Run looks at the published log now and every PollTime. It returns nil when the context ends, and the lie when the auditor was stopped.
func (w *Watcher) Run(ctx context.Context) error {
	ticker := time.NewTicker(PollTime)
	defer ticker.Stop()
	for {
		w.look(ctx)
		select {
		case <-w.auditor.caught:
			return w.auditor.Stopped()
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (w *Watcher) look(ctx context.Context) {
	r, err := w.auditor.Published(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		w.failures.Add(1)
		w.log.Warn("the log was not audited", "error", err)
	default:
		w.failures.Store(0)
		w.size.Store(r.Size)
		w.rootAt.Store(r.MapRootAt)
		if r.Stale {
			w.log.Warn("the log falls behind", "error", StaleRoot(r, w.auditor.config.Now()))
		}
		if r.Read > 0 {
			w.log.Info("audited", "size", r.Size, "entries", r.Read, "labels", r.Labels, "public", r.Public)
		}
	}
}
