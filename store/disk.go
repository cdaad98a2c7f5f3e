package store

import (
	"errors"
	"fmt"

	"letterlock/chat"
)

// What the disk beneath can do to a write. A write that fails by one of these is chat.Unavailable and carries the sentence for whoever
// sent it. Whether it was saved is as open as after any failed commit.
var (
	ErrDiskFull   = errors.New("the server's disk is full")
	ErrReadOnly   = errors.New("the server's disk is read only")
	ErrDiskFailed = errors.New("the server's disk takes no writes") // above a quota or another limit, or broken: the cause says which
)

// DiskError finds which of the three err is, or nil: what the operator is told once and not for every message.
func DiskError(err error) error {
	for _, e := range []error{ErrDiskFull, ErrReadOnly, ErrDiskFailed} {
		if errors.Is(err, e) {
			return e
		}
	}
	return nil
}

// Disk says how the last write that reached the disk went: nil, or which of the three it met. The next that succeeds clears it.
func (s *Store) Disk() error {
	if e := s.disk.Load(); e != nil {
		return *e
	}
	return nil
}

// WatchDisk sets who is told when Disk changes: of the error of the write, or nil. It must not block, nor write to the store.
func (s *Store) WatchDisk(fn func(error)) { s.onDisk = fn }

// written looks at the outcome of a write transaction and gives errors of the disk their kind.
func (s *Store) written(err error) error {
	if err == nil {
		if s.disk.Load() != nil && s.disk.Swap(nil) != nil && s.onDisk != nil {
			s.onDisk(nil)
		}
		return nil
	}
	what := s.engine.DiskError(err)
	if what == nil {
		return err
	}
	err = ofDisk(what, err)
	if s.disk.Swap(&what) == nil && s.onDisk != nil {
		s.onDisk(err)
	}
	return err
}

func ofDisk(what, err error) error {
	return chat.Wrap(chat.Unavailable, fmt.Errorf("%w: %w", what, err), "%v: send it again later, with the same key if it has one", what)
}
