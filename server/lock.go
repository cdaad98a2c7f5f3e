package server

import (
	"errors"
	"os"
	"syscall"

	"letterlock/chat"
)

// takeLock holds a data folder for this process. The system lets go of it when the process ends, however it ends.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	switch {
	case errors.Is(err, syscall.EROFS):
		return nil, chat.Errorf(chat.Invalid, "the data folder is on a disk that is read only, and must be written to: mount it for writing (a disk with errors may have "+
			"been made read only by the system: look into its log)")
	case errors.Is(err, syscall.ENOSPC):
		return nil, chat.Wrap(chat.Unavailable, err, "the disk of the data folder is full: make space")
	case err != nil:
		return nil, chat.Wrap(chat.Invalid, err, "the data folder cannot be used")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, chat.Wrap(chat.Unavailable, err, "another letterlock works on this data folder: stop it first, or choose another --data")
	}
	return f, nil
}
