//go:build unix

package agent

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"

	"letterlock/chat"
)

// listenUnix listens on a socket that only this user can open. A socket that a dead agent left is replaced.
func listenUnix(path string) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, chat.Errorf(chat.Unavailable, "another process listens on %s", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, chat.Wrap(chat.Unavailable, err, "the agent cannot listen on %s", path)
	}
	return l, nil
}
