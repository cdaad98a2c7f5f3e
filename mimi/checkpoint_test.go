package mimi

import (
	"bytes"
	"testing"
)

func TestCheckpointTravelsInTheContent(t *testing.T) {
	c, err := Text("hello").WithCheckpoint([]byte("a note\n"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(back.Checkpoint(), []byte("a note\n")) || back.View().Text != "hello" {
		t.Fatalf("read back %q, %q", back.Checkpoint(), back.View().Text)
	}
	if Text("hello").Checkpoint() != nil {
		t.Fatal("a content without a checkpoint has one")
	}
	back.Extensions[ExtensionCheckpoint] = []byte{0x01} // a number in its place
	if back.Checkpoint() != nil {
		t.Fatal("a number passes for a checkpoint")
	}
}
