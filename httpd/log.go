package httpd

import (
	"log/slog"
	"net/http"
)

// Refuser answers errors of handlers that stand beside this package (the public log) as it answers its own: one mapping for all.
func Refuser(l *slog.Logger) func(http.ResponseWriter, *http.Request, error) {
	return (&server{Config: Config{Logger: l}}).refuse
}
