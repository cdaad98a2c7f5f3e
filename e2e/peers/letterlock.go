package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"letterlock/api"
	"letterlock/bench"
	"letterlock/chat"
)

// letterlockLoad is the load of `letterlock bench send`.
type letterlockLoad struct {
	pairs  []*bench.Pair
	o      bench.SendOptions
	server *bench.Process
}

// buildLetterlock builds the binary of this tree.
func buildLetterlock(ctx context.Context, dir string) (executable string, err error) {
	executable = filepath.Join(dir, "letterlock")
	_, err = do(exec.CommandContext(ctx, "go", "build", "-o", executable, "letterlock"))
	return executable, err
}

// takesPostgres says whether this binary can keep its data in PostgreSQL.
func takesPostgres(ctx context.Context, executable string) bool {
	help, err := do(exec.CommandContext(ctx, executable, "serve", "--help"))
	return err == nil && strings.Contains(help, "--database ")
}

// startLetterlock starts a server on SQLite, or on c if there is one.
func startLetterlock(ctx context.Context, executable, dir string, c *cluster, pairs int, o bench.SendOptions) (*letterlockLoad, error) {
	address, err := bench.FreeAddress()
	if err != nil {
		return nil, err
	}
	options := bench.ServerOptions{Executable: executable, DataDir: filepath.Join(dir, "data"), Address: address}
	if c != nil {
		options.Args = []string{"--database", c.URL()}
	}
	l := &letterlockLoad{o: o}
	if l.server, err = bench.Start(ctx, options); err != nil {
		return nil, err
	}
	if l.pairs, err = bench.NewPairs(ctx, l.server.Target, pairs, nil); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *letterlockLoad) Window(ctx context.Context, window int) (bench.Throughput, error) {
	return bench.Window(ctx, l.pairs, window, l.o)
}

func (l *letterlockLoad) Rate(ctx context.Context, rate int) (bench.Latency, error) {
	o := l.o
	o.Duration = max(o.Duration, rateTime)
	return bench.Rate(ctx, l.pairs, rate, o)
}

// One sends one message by HTTP, while the other person waits for it by HTTP.
func (l *letterlockLoad) One(ctx context.Context, acknowledged, arrived func()) error {
	p := l.pairs[0]
	at, err := p.A.GetConversation(ctx, p.Conversation)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() {
		key := chat.NewToken()
		_, err := p.A.SendMessage(ctx, p.Conversation, api.Message{Message: p.Message(l.o.Size, int64(time.Since(began))), DedupKey: key[:16]})
		if err == nil {
			acknowledged()
		}
		failed <- err
	}()
	go func() {
		page, err := p.B.Log(ctx, p.Conversation, at.LastSeq, 1, int(patient.Seconds()))
		if err == nil && len(page.Entries) > 0 {
			arrived()
		}
		failed <- err
	}()
	for range 2 {
		if err := <-failed; err != nil {
			return err
		}
	}
	return nil
}

// Sent is not counted by the bench.
func (l *letterlockLoad) Sent() int64 { return 0 }

func (l *letterlockLoad) Close() { l.server.Kill() }
