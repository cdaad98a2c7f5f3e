package witness

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"letterlock/chat"
)

const (
	addCheckpoint = "add-checkpoint"
	sizeType      = "text/x.tlog.size"
)

// Handler answers POST /add-checkpoint.
func (w *Witness) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /"+addCheckpoint, w.serve)
	return mux
}

func (w *Witness) serve(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBody))
	if err != nil {
		http.Error(rw, fmt.Sprintf("the body cannot be read, or is larger than %d bytes", maxBody), http.StatusRequestEntityTooLarge)
		return
	}
	req, err := parseRequest(body)
	if err != nil {
		w.refuse(rw, err)
		return
	}
	hashes := make([][32]byte, len(req.hashes))
	for i, h := range req.hashes {
		hashes[i] = h
	}
	line, err := w.AddCheckpoint(r.Context(), req.old, hashes, req.signed)
	if err != nil {
		w.refuse(rw, err)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(rw, line) // a log that went away asks again
}

// refuse answers as c2sp.org/tlog-witness says. What a Check found wrong with the log is 422, what it could not find out is 503.
func (w *Witness) refuse(rw http.ResponseWriter, err error) {
	var conflict *Conflict
	if errors.As(err, &conflict) {
		rw.Header().Set("Content-Type", sizeType)
		rw.WriteHeader(http.StatusConflict)
		fmt.Fprintf(rw, "%d\n", conflict.Size)
		return
	}
	status := http.StatusInternalServerError
	switch chat.KindOf(err) {
	case chat.Invalid, chat.Incompatible:
		status = http.StatusBadRequest
	case chat.TooLarge:
		status = http.StatusRequestEntityTooLarge
	case chat.NotFound:
		status = http.StatusNotFound
	case chat.Forbidden:
		status = http.StatusForbidden
	case chat.Unproven, chat.Tampered:
		status = http.StatusUnprocessableEntity
		w.log.Warn("a checkpoint was not signed", slog.Any("error", err))
	case chat.Unavailable, chat.TooMany:
		status = http.StatusServiceUnavailable
		w.log.Warn("a checkpoint could not be signed", slog.Any("error", err))
	default:
		w.log.Error("a checkpoint could not be signed", slog.Any("error", err))
		err = errors.New("something went wrong here; it was logged")
	}
	http.Error(rw, plain(err), status)
}

// plain is what a stranger may read of an error: its sentence, without the cause.
func plain(err error) string {
	var e *chat.Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return err.Error()
}
