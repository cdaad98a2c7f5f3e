package mimi

import (
	"maps"

	"github.com/fxamacker/cbor/v2"
)

// ExtensionCheckpoint holds the checkpoint of the server's public ledger that the sender remembers: a signed note, as a byte string.
// Readers hold it against the ledger that they are shown (spec/content.md).
const ExtensionCheckpoint = "letterlock/checkpoint/v1"

// WithCheckpoint is c with a checkpoint.
func (c Content) WithCheckpoint(note []byte) (Content, error) {
	value, err := enc.Marshal(note)
	if err != nil {
		return c, err
	}
	x := map[any]cbor.RawMessage{}
	maps.Copy(x, c.Extensions)
	x[ExtensionCheckpoint] = value
	c.Extensions = x
	return c, nil
}

// Checkpoint is the checkpoint in c; nil if there is none, or something else in its place.
func (c Content) Checkpoint() (note []byte) {
	if value, ok := c.Extensions[ExtensionCheckpoint]; ok && dec.Unmarshal(value, &note) != nil {
		return nil
	}
	return note
}
