package server

import (
	"context"
	"path/filepath"

	"letterlock/chat"
	"letterlock/store"
	"letterlock/store/postgres"
	"letterlock/store/sqlite"
)

// openStore opens the operator's database: the PostgreSQL at an address, or without one the file in the data folder. What else works
// on it is refused: by the folder's lock there, by the engine's here.
func openStore(ctx context.Context, dataDir, database string) (*store.Store, error) {
	if database == "" {
		return sqlite.Open(ctx, databaseFile(dataDir))
	}
	if !postgres.IsURL(database) {
		return nil, chat.Errorf(chat.Invalid, "--database takes the address of a PostgreSQL, postgres://user:password@host:5432/name; without it the database is a file in --data")
	}
	return postgres.OpenAlone(ctx, database)
}

func databaseFile(dataDir string) string { return filepath.Join(dataDir, databaseName) }
