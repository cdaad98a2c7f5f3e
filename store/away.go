package store

import (
	"errors"

	"letterlock/chat"
)

// reached gives the error of a database that is not there, or that broke off, its kind: Unavailable, for reads too. Whether a
// transaction was saved before its connection broke is as open as after any failed commit.
func (s *Store) reached(err error) error {
	var known *chat.Error
	if err == nil || errors.As(err, &known) || !s.engine.Away(err) {
		return err
	}
	return chat.Wrap(chat.Unavailable, err, "the server's database does not answer: send it again later, with the same key if it has one")
}
