package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"letterlock/chat"
	"letterlock/store/sqlite"
)

// Compacted says how large the database file was and is, in bytes.
type Compacted struct {
	Before int64 `json:"before"`
	After  int64 `json:"after"`
}

// Compact gives the room that deleted messages left in the database file back to the disk. No server may hold the folder.
func Compact(ctx context.Context, dataDir string) (c Compacted, err error) {
	path := filepath.Join(dataDir, databaseName)
	if _, err := os.Stat(path); err != nil {
		return c, chat.Wrap(chat.NotFound, err, "there is no data folder of a server at %s", dataDir)
	}
	lock, err := takeLock(filepath.Join(dataDir, lockName))
	if err != nil {
		return c, err
	}
	defer lock.Close()
	if c.Before, c.After, err = sqlite.Compact(ctx, path); err != nil {
		return c, fmt.Errorf("compact: nothing was changed (is there room on the disk for the file a second time?): %w", err)
	}
	return c, nil
}
