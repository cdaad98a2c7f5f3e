package postgres

import "testing"

// Settings reads a setting on a connection of each pool of a store, for tests.
func Settings(t *testing.T, address, name string) (values []string) {
	t.Helper()
	config, err := parse(address)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{}
	if err := e.connect(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var hot, writer, reader string
	for dst, read := range map[*string]interface{ Scan(...any) error }{
		&hot: e.hot.QueryRow(t.Context(), "SELECT current_setting($1)", name), &writer: e.writer.QueryRow("SELECT current_setting($1)", name),
		&reader: e.reader.QueryRow("SELECT current_setting($1)", name),
	} {
		if err := read.Scan(dst); err != nil {
			t.Fatal(err)
		}
	}
	return []string{hot, writer, reader}
}
