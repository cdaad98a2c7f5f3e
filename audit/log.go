package audit

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/proof"
)

// maxTile is the most bytes of any answer of a log: a full tile of the largest entries.
const maxTile = torchwood.TileWidth * (2 + proof.MaxLeaf)

// remote is a log as its server shows it. What it returns, but for checkpoints' freshness, has been checked against a signed checkpoint.
type remote struct {
	base     string // of the log, with a slash at the end
	verifier note.Verifier
	http     *http.Client
	tiles    tiles
}

// openRemote reads the log of the server at a URL.
func openRemote(server string, verifier note.Verifier) (*remote, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return nil, chat.Errorf(chat.Invalid, "%q is not the URL of a server, like https://chat.example", server)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 16
	r := &remote{base: strings.TrimSuffix(server, "/") + "/log/", verifier: verifier,
		http: &http.Client{Transport: limited{transport}, Timeout: time.Minute}}
	fetcher, err := torchwood.NewTileFetcher(r.base, torchwood.WithHTTPClient(r.http), torchwood.WithConcurrencyLimit(8), torchwood.WithUserAgent("letterlock-audit"))
	r.tiles = tiles{fetcher}
	return r, err
}

// limited lets no answer be larger than a tile can be.
type limited struct{ http.RoundTripper }

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxTile)
	}
	return resp, err
}

// tiles marks what went wrong on the way, so that it can be told from tiles that are wrong.
type tiles struct{ *torchwood.TileFetcher }

// notFetched is the cause of an error that is nobody's lie.
type notFetched struct{ error }

func (t tiles) ReadTiles(ctx context.Context, list []tlog.Tile) ([][]byte, error) {
	data, err := t.TileFetcher.ReadTiles(ctx, list)
	if err != nil {
		return nil, notFetched{err}
	}
	return data, nil
}

// failed says what an error of reading tiles means.
func failed(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if _, ok := errors.AsType[notFetched](err); ok || errors.Is(err, context.DeadlineExceeded) {
		return chat.Wrap(chat.Unavailable, err, "the log could not be read: try again")
	}
	return chat.Wrap(chat.Unproven, err, "the log serves a tile that is not of the tree that it signed")
}

func tree(c proof.Checkpoint) tlog.Tree { return tlog.Tree{N: c.Size, Hash: c.Root} }

// checkpoint is the newest one that the log publishes.
func (l *remote) checkpoint(ctx context.Context) (proof.Checkpoint, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.base+"checkpoint", nil)
	if err != nil {
		return proof.Checkpoint{}, err
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return proof.Checkpoint{}, chat.Wrap(chat.Unavailable, err, "the log cannot be reached: try again")
	}
	defer resp.Body.Close()
	signed, err := io.ReadAll(io.LimitReader(resp.Body, proof.MaxCheckpoint+1))
	if err != nil || resp.StatusCode != http.StatusOK {
		return proof.Checkpoint{}, chat.Wrap(chat.Unavailable, err, "the log shows no checkpoint (%s): try again", resp.Status)
	}
	return proof.OpenCheckpoint(signed, l.verifier)
}

// rootAt is the root that the first size entries of a checkpoint's tree have.
func (l *remote) rootAt(ctx context.Context, c proof.Checkpoint, size int64) (hash, error) {
	h, err := tlog.TreeHash(size, torchwood.TileHashReaderWithContext(ctx, tree(c), l.tiles))
	return h, failed(err)
}

// entry is one entry of a checkpoint's tree, with its tlog-proof.
func (l *remote) entry(ctx context.Context, c proof.Checkpoint, index int64) (data, tlogProof []byte, err error) {
	client, err := torchwood.NewClient(l.tiles)
	if err != nil {
		return nil, nil, err
	}
	data, p, err := client.Entry(ctx, tree(c), index)
	if err != nil {
		return nil, nil, failed(err)
	}
	return data, torchwood.FormatProof(index, p, c.Signed), nil
}

// entries reads the entries of a checkpoint's tree from an index on.
func (l *remote) entries(ctx context.Context, c proof.Checkpoint, from int64, emit func([]byte) error) error {
	client, err := torchwood.NewClient(l.tiles)
	if err != nil {
		return err
	}
	for _, data := range client.AllEntries(ctx, tree(c), from) {
		if err := emit(data); err != nil {
			return err
		}
	}
	if err := client.Err(); err != nil {
		return failed(err)
	}
	return ctx.Err()
}

const (
	batchEntries = torchwood.TileWidth
	batchesAhead = 16
)

// pipeline reads and parses entries beside taking them up, in order. It ends with the first error of either.
func pipeline(ctx context.Context, produce func(ctx context.Context, emit func([]byte) error) error, take func(entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	batches := make(chan []entry, batchesAhead)
	var produced error // may be read once batches is closed
	go func() {
		defer close(batches)
		produced = fill(ctx, produce, batches)
	}()
	var err error
	for batch := range batches {
		for i := 0; i < len(batch) && err == nil; i++ {
			if err = take(batch[i]); err != nil {
				cancel()
			}
		}
	}
	cancel()
	if err != nil {
		return err
	}
	return produced
}

// fill makes batches of what produce emits.
func fill(ctx context.Context, produce func(context.Context, func([]byte) error) error, batches chan<- []entry) error {
	var batch []entry
	send := func() error {
		select {
		case batches <- batch:
			batch = make([]entry, 0, batchEntries)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := produce(ctx, func(data []byte) error {
		batch = append(batch, readEntry(data))
		if len(batch) < batchEntries {
			return nil
		}
		return send()
	})
	return errors.Join(err, send())
}
