package server

import (
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"letterlock/store"
)

const (
	probeSize  = 1 << 20     // bytes that must be free before the server calls itself ready again
	probeEvery = time.Second // at most
	sayAgain   = time.Minute // a disk that comes and goes is in the log at most so often
)

// disk tells the operator, once, that the disk takes no writes, and callers of /readyz whether it does. It decides nothing: each
// write finds out for itself, so that the first one after space has returned succeeds.
type disk struct {
	store *store.Store
	dir   string
	log   *slog.Logger

	mu     sync.Mutex
	said   time.Time // when the log was told of the failure; zero: it was not, or it was told of the end
	last   time.Time // when the last failure was told
	probed time.Time
	room   bool // what the last probe found
}

// watchDisk begins to watch the disk beneath a store.
func watchDisk(s *store.Store, dir string, log *slog.Logger) *disk {
	d := &disk{store: s, dir: dir, log: log}
	s.WatchDisk(d.changed)
	return d
}

func (d *disk) changed(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil && !d.said.IsZero():
		d.log.Info("the disk takes writes again")
		d.said = time.Time{}
	case err != nil && now.Sub(d.last) > sayAgain:
		d.log.Error("the disk takes no writes: nothing is acknowledged, reading goes on; make space, the server goes on by itself", slog.Any("error", err))
		d.said, d.last = now, now
		d.probed = time.Time{}
	}
}

// trouble is why the server cannot take writes now, or nil. A disk that failed a write is tried again, so that a server which nobody
// sends to for that reason finds out that there is space.
func (d *disk) trouble() error {
	err := d.store.Disk()
	if err == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); now.Sub(d.probed) > probeEvery {
		d.probed, d.room = now, probe(d.dir) == nil
	}
	if d.room {
		return nil
	}
	return err
}

// probe writes a file, syncs it and takes it away.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, probeSize)); err != nil {
		return err
	}
	return f.Sync()
}

// health answers /healthz, by which a supervisor decides whether to restart the process, and /readyz, by which a balancer decides
// whether to send it people. A full disk is no reason to restart: /healthz stays 200 and says what is wrong.
func (d *disk) health(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		text := "ok\n"
		if err := d.store.Disk(); err != nil {
			text += err.Error() + "\n"
		}
		w.Write([]byte(text))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := d.trouble(); err != nil {
			w.Header().Set("Retry-After", "5")
			http.Error(w, err.Error()+": what is sent is refused, what is there can be read", http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("ready\n"))
	})
	mux.Handle("/", next)
	return mux
}
