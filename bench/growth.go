package bench

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"letterlock/chat"
)

// GrowthOptions say how much is stored when throughput is measured.
type GrowthOptions struct {
	Pairs    int
	Size     int   // content of a message, bytes
	Steps    []int // messages stored at least, rising
	Window   int   // of the measurement, for each pair
	Warmup   time.Duration
	Duration time.Duration
	Server   *Process // nil: somebody else's
	Progress Progress
	// Disk says what the store takes: its data and, apart, its log. Nil: not known.
	Disk func(ctx context.Context) (DiskUse, error)
}

// DiskUse is in bytes.
type DiskUse struct {
	Data int64 `json:"data_bytes"`
	Log  int64 `json:"log_bytes"` // written ahead, used again and again
}

// Growth is what came of it.
type Growth struct {
	Pairs           int          `json:"pairs"`
	Window          int          `json:"window"`
	CiphertextBytes int          `json:"ciphertext_bytes"` // of a message, as sent
	Steps           []GrowthStep `json:"steps"`
	LastToFirst     float64      `json:"last_to_first"`               // throughput
	Closed          *DiskUse     `json:"disk_after_stop,omitempty"`   // the server ended in order
	PerMessage      float64      `json:"bytes_per_message,omitempty"` // of both, beyond the empty store's
}

// GrowthStep is one measurement. It adds messages itself.
type GrowthStep struct {
	Stored     int64      `json:"stored"` // before
	FillRate   float64    `json:"filled_per_second"`
	Disk       *DiskUse   `json:"disk,omitempty"` // after filling; some messages may stand in the log alone
	Throughput Throughput `json:"throughput"`
	Added      int64      `json:"added"`
}

// RoomFor refuses to fill a disk: with a message's bytes, what stands around it, half of both again, and 4 GB for logs.
func RoomFor(dir string, messages, size int) error {
	free, err := freeBytes(dir)
	if err != nil {
		return err
	}
	if need := int64(messages)*int64(size+400)*3/2 + min(4<<30, int64(messages)*4<<10); free < need {
		return chat.Errorf(chat.Invalid, "%d messages need about %.1f GB and the disk of %s has %.1f GB left: choose another --dir, or fewer with --upto",
			messages, float64(need)/1e9, dir, float64(free)/1e9)
	}
	return nil
}

// MeasureGrowth fills the store step by step and measures after each.
func MeasureGrowth(ctx context.Context, at Target, o GrowthOptions) (result Growth, err error) {
	pairs, err := NewPairs(ctx, at, o.Pairs, o.Progress)
	if err != nil {
		return result, err
	}
	result = Growth{Pairs: o.Pairs, Window: o.Window, CiphertextBytes: len(pairs[0].Message(o.Size, 0))}
	empty, err := o.disk(ctx)
	if err != nil {
		return result, err
	}
	for _, step := range o.Steps {
		s, err := growTo(ctx, at, pairs, int64(step), o)
		if err != nil {
			return result, err
		}
		result.Steps = append(result.Steps, s)
	}
	first, last := result.Steps[0], result.Steps[len(result.Steps)-1]
	result.LastToFirst = last.Throughput.PerSecond / first.Throughput.PerSecond
	if o.Server == nil || empty == nil {
		return result, nil
	}
	if err := o.Server.Stop(); err != nil {
		return result, err
	}
	if result.Closed, err = o.disk(ctx); err == nil {
		result.PerMessage = float64(result.Closed.Data+result.Closed.Log-empty.Data-empty.Log) / float64(last.Stored+last.Added)
	}
	return result, err
}

func growTo(ctx context.Context, at Target, pairs []*Pair, step int64, o GrowthOptions) (s GrowthStep, err error) {
	before, err := storedIn(ctx, pairs)
	if err != nil {
		return s, err
	}
	if n := step - before; n > 0 {
		o.Progress.say("filling up to %d", step)
		start := time.Now()
		if err := fill(ctx, at, pairs, int(n), o.Size, max(fillWindow/len(pairs), 16), o.Progress); err != nil {
			return s, err
		}
		s.FillRate = float64(n) / time.Since(start).Seconds()
	}
	if s.Stored, err = storedIn(ctx, pairs); err != nil {
		return s, err
	}
	if s.Disk, err = o.disk(ctx); err != nil {
		return s, err
	}
	o.Progress.say("measuring with %d stored", s.Stored)
	s.Throughput, err = Window(ctx, pairs, o.Window, SendOptions{Size: o.Size, Warmup: o.Warmup, Duration: o.Duration, Server: o.Server})
	if err != nil {
		return s, err
	}
	after, err := storedIn(ctx, pairs)
	s.Added = after - s.Stored
	return s, err
}

func (o *GrowthOptions) disk(ctx context.Context) (*DiskUse, error) {
	if o.Disk == nil {
		return nil, nil
	}
	d, err := o.Disk(ctx)
	return &d, err
}

// storedIn counts the messages that stand in the pairs' logs, beside the one commit of each.
func storedIn(ctx context.Context, pairs []*Pair) (n int64, err error) {
	for _, p := range pairs {
		c, err := p.A.GetConversation(ctx, p.Conversation)
		if err != nil {
			return 0, err
		}
		n += int64(c.LastSeq) - 1
	}
	return n, nil
}

// DiskOfFolder is what a data folder's files take: SQLite's log is the one that ends in -wal.
func DiskOfFolder(dir string) (d DiskUse, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return gone(err)
		}
		info, err := e.Info()
		if err != nil {
			return gone(err)
		}
		if strings.HasSuffix(path, "-wal") || strings.HasSuffix(path, "-shm") {
			d.Log += info.Size()
		} else {
			d.Data += info.Size()
		}
		return nil
	})
	return d, err
}

// gone forgives a file that went while we looked.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
