package pgtest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestPoolsAreSeparate(t *testing.T) {
	t.Parallel()
	one, two := pgtest.Pool(t), pgtest.Pool(t)
	const insert = "INSERT INTO users (username, email) VALUES ('ada', 'ada@example.com')"
	if _, err := one.Exec(t.Context(), insert); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Exec(t.Context(), insert); err != nil {
		t.Fatalf("the same user in another test's database: %v", err)
	}
	require.NoError(t, postgres.CheckSchema(t.Context(), two))
}

func TestEmptyHasNoTables(t *testing.T) {
	t.Parallel()
	var tables int
	err := pgtest.Open(t, pgtest.Empty(t)).QueryRow(t.Context(),
		"SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables)
	if err != nil || tables != 0 {
		t.Fatalf("tables = %d, err = %v; want an empty database", tables, err)
	}
}

func TestClusterComesBack(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t)
	pool := pgtest.Open(t, pgtest.Migrated(t, c))
	require.NoError(t, pool.Ping(t.Context()))
	c.Kill()
	if err := pool.Ping(t.Context()); !postgres.Unavailable(err) {
		t.Fatalf("ping of a killed server: %v; want one that counts as unavailable", err)
	}
	require.NoError(t, c.Start(t.Context()))
	require.NoError(t, postgres.CheckSchema(t.Context(), pool), "after the server came back")
}
