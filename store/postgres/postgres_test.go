package postgres_test

import (
	"testing"

	"letterlock/store"
	"letterlock/store/postgres"
	"letterlock/store/storetest"
)

func TestExam(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open {
		url := storetest.Postgres(t)
		return func(t testing.TB) *store.Store { return open(t, url) }
	})
}

func BenchmarkAppend(b *testing.B) {
	storetest.BenchmarkAppend(b, open(b, storetest.Postgres(b)))
}

func open(t testing.TB, url string) *store.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
