package sqlite

import (
	"database/sql"
	"time"
)

// closeWait is how long a connection whose transaction was called off may take to go.
const closeWait = 5 * time.Second

// closeDB closes a database and waits until its last connection is gone: one whose context ended closes by itself, a little later, and
// until then the file beside the database may be written back.
func closeDB(db *sql.DB) error {
	err := db.Close()
	for until := time.Now().Add(closeWait); db.Stats().OpenConnections > 0 && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	return err
}
