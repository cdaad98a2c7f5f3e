package sqlite

import (
	"database/sql"
	"net/url"
)

// OpenReadOnly opens the file at path for who reads whole tables. Nothing can be changed through it.
func OpenReadOnly(path string) *sql.DB {
	q := url.Values{"mode": {"ro"}, "_pragma": {"query_only(ON)", "busy_timeout(10000)", "cache_size(-16384)"}}
	return sql.OpenDB(connector{uri(path, q), plain})
}
