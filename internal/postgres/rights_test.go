package postgres_test

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

// TestMissingRights takes every right from a role. The statements in the error, and
// nothing else, give it what it needs.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"app", "An App"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := pgtest.Empty(t)
			admin, err := pgx.Connect(t.Context(), address)
			require.NoError(t, err)
			do := func(statements ...string) {
				for _, s := range statements {
					if _, err := admin.Exec(context.WithoutCancel(t.Context()), s); err != nil {
						t.Fatalf("%s: %v", s, err)
					}
				}
			}
			database := admin.Config().Database
			// The server is shared with other tests, and roles belong to the whole server.
			plain := name + strings.TrimPrefix(database, "test")
			role := pgx.Identifier{plain}.Sanitize()
			do("CREATE ROLE " + role + " LOGIN")
			t.Cleanup(func() {
				do("REASSIGN OWNED BY "+role+" TO CURRENT_USER", "DROP OWNED BY "+role, "DROP ROLE "+role)
				_ = admin.Close(context.WithoutCancel(t.Context()))
			})
			as := asUser(t, address, plain)
			do("REVOKE ALL ON DATABASE "+database+" FROM PUBLIC", "REVOKE ALL ON SCHEMA public FROM PUBLIC")
			migrate := func() error { return postgres.Migrate(t.Context(), as, slog.New(slog.DiscardHandler)) }

			refused := migrate()
			if refused == nil || !strings.Contains(refused.Error(), "permission denied for database") {
				t.Fatalf("without a right: %v", refused)
			}
			_, statements, found := strings.Cut(refused.Error(), "mends that with: ")
			if !found {
				t.Fatalf("no cure in: %v", refused)
			}
			do(strings.Split(statements, "; ")...)
			require.NoError(t, migrate())
			assert.NoError(t, postgres.CheckSchema(t.Context(), pgtest.Open(t, as)))
			do("REVOKE CREATE ON SCHEMA public FROM "+role, "ALTER TABLE goose_db_version OWNER TO CURRENT_USER")
			err = postgres.CheckSchema(t.Context(), pgtest.Open(t, as))
			if err == nil || !strings.Contains(err.Error(), "GRANT that role TO ") {
				t.Errorf("with the tables of another role: %v", err)
			}
			do("REVOKE USAGE ON SCHEMA public FROM " + role)
			err = postgres.CheckSchema(t.Context(), pgtest.Open(t, as))
			if err == nil || !strings.Contains(err.Error(), "GRANT USAGE") {
				t.Errorf("without USAGE, the schema looks empty: %v", err)
			}
		})
	}
}

func asUser(t *testing.T, address, role string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	u.User = url.User(role)
	return u.String()
}
