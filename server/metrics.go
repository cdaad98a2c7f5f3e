package server

import (
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"letterlock/delivery"
	"letterlock/ledger"
)

// metrics are figures for the operator. Labels are routes and status codes: never ids, addresses or content. They are served on the
// admin socket alone, since even counts are nobody else's business.
type metrics struct {
	registry     *prometheus.Registry
	requests     *prometheus.CounterVec
	batchEntries prometheus.Histogram
	batchSeconds prometheus.Histogram
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "letterlock_requests_total", Help: "Answered requests."}, []string{"route", "code"}),
		batchEntries: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "letterlock_batch_entries", Help: "Entries written in one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
		batchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "letterlock_batch_seconds", Help: "Duration of one transaction, its sync included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 15)}),
	}
	m.registry.MustRegister(m.requests, m.batchEntries, m.batchSeconds, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observeBatch(entries int, took time.Duration) {
	m.batchEntries.Observe(float64(entries))
	m.batchSeconds.Observe(took.Seconds())
}

// watch adds the figures that delivery keeps itself.
func (m *metrics) watch(d *delivery.Service) {
	gauge := func(name, help string, value func(delivery.Stats) int) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value(d.Stats())) }))
	}
	gauge("letterlock_conversations_cached", "Conversations in memory.", func(s delivery.Stats) int { return s.Cached })
	gauge("letterlock_entries_queued", "Entries that wait to be written.", func(s delivery.Stats) int { return s.Queued })
	gauge("letterlock_streams", "Live connections.", func(s delivery.Stats) int { return s.Streams })
}

// watchLedger adds how far the published ledger is behind.
func (m *metrics) watchLedger(l *ledger.Ledger) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "letterlock_ledger_waiting", Help: "Ledger entries that wait for a quorum of witnesses."},
		func() float64 { return float64(l.Waiting()) }))
}

// counted counts answers by route and status.
func (m *metrics) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(c, r)
		m.requests.WithLabelValues(r.Pattern, strconv.Itoa(c.status)).Inc()
	})
}

// statusWriter remembers the status. Unwrap lets the live connection take the socket.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// routes serves metrics and profiles on the admin socket:
//
//	curl --unix-socket DATA/admin.sock http://admin/metrics
func (m *metrics) routes(mux *http.ServeMux) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}
