//go:build unix

package vault

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"letterlock/chat"
)

// lockPause is how long to wait between two looks at a lock.
const lockPause = 20 * time.Millisecond

// acquire locks the file for this process, waiting at most wait. Closing the file, or the end of the process, lets go.
func acquire(path string, wait time.Duration) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	deadline := time.Now().Add(wait)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("vault: lock: %w", err)
		}
		if !time.Now().Before(deadline) {
			f.Close()
			return nil, chat.Errorf(chat.Unavailable, "another client is running on this folder (%s)", path)
		}
		time.Sleep(lockPause)
	}
}
