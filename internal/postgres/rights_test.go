package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

// newcomer is a role without any right in a database that another role owns.
type newcomer struct {
	t     *testing.T
	admin *pgx.Conn
	url   string
	role  string // quoted as SQL needs it
}

func newNewcomer(t *testing.T, url, role string) *newcomer {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	// The server is shared with other tests, and roles belong to the whole server.
	role += strings.TrimPrefix(admin.Config().Database, "test")
	n := &newcomer{t: t, admin: admin, url: asUser(t, url, role), role: pgx.Identifier{role}.Sanitize()}
	n.do("CREATE ROLE " + n.role + " LOGIN")
	t.Cleanup(func() {
		n.do("REASSIGN OWNED BY "+n.role+" TO CURRENT_USER", "DROP OWNED BY "+n.role, "DROP ROLE "+n.role)
		_ = admin.Close(context.WithoutCancel(t.Context()))
	})
	return n
}

func asUser(t *testing.T, address, role string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	return u.String()
}

func (n *newcomer) do(statements ...string) {
	n.t.Helper()
	for _, s := range statements {
		if _, err := n.admin.Exec(context.WithoutCancel(n.t.Context()), s); err != nil {
			n.t.Fatalf("%s: %v", s, err)
		}
	}
}

// cure returns the statements in the text of an error.
func cure(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		t.Fatal("a role without rights was served")
	}
	_, statements, found := strings.Cut(err.Error(), "mends that with: ")
	if !found {
		t.Fatalf("no cure in: %v", err)
	}
	return strings.Split(statements, "; ")
}

// TestMigrateNamesTheRightsThatAreMissing takes every right away and then grants the
// rights that each message names, until it works.
func TestMigrateNamesTheRightsThatAreMissing(t *testing.T) {
	t.Parallel()
	for name, role := range map[string]string{"a plain name": "app", "a name that needs quotes": "An App"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNewcomer(t, pgtest.Empty(t), role)
			database := pgx.Identifier{n.admin.Config().Database}.Sanitize()
			n.do("REVOKE ALL ON DATABASE "+database+" FROM PUBLIC", "REVOKE ALL ON SCHEMA public FROM PUBLIC")
			migrate := func() error { return postgres.Migrate(t.Context(), n.url, slog.New(slog.DiscardHandler)) }

			plain := func(s string) string { // names are quoted only if they need it
				if role == "app" {
					s = strings.ReplaceAll(s, n.role, strings.Trim(n.role, `"`))
				}
				return strings.ReplaceAll(s, database, strings.Trim(database, `"`))
			}
			for _, want := range [][]string{
				{"GRANT CONNECT ON DATABASE " + database + " TO " + n.role},
				{"GRANT USAGE, CREATE ON SCHEMA public TO " + n.role, "GRANT CREATE ON DATABASE " + database + " TO " + n.role},
			} {
				got := cure(t, migrate())
				if plain(strings.Join(want, "; ")) != strings.Join(got, "; ") {
					t.Fatalf("the cure is %q, want %q", got, want)
				}
				n.do(got...)
			}
			if err := migrate(); err != nil {
				t.Fatal(err)
			}
			if err := postgres.CheckSchema(t.Context(), pgtest.Open(t, n.url)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMigrateWithoutCreateOnTheSchema has the rights that Postgres 15 and later give to
// a role that owns nothing.
func TestMigrateWithoutCreateOnTheSchema(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t, pgtest.Empty(t), "app")
	n.do("CREATE EXTENSION pg_trgm")
	err := postgres.Migrate(t.Context(), n.url, slog.New(slog.DiscardHandler))
	want := "GRANT CREATE ON SCHEMA public TO " + strings.Trim(n.role, `"`)
	if got := cure(t, err); len(got) != 1 || got[0] != want {
		t.Errorf("the cure is %q, want %s", got, want)
	}
	if !strings.Contains(err.Error(), "permission denied for schema public") {
		t.Errorf("the server's own words are gone: %v", err)
	}
}

// TestRightsOnTheTablesOfAnother uses roles that did not migrate.
func TestRightsOnTheTablesOfAnother(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t, pgtest.URL(t), "app")
	pool := pgtest.Open(t, n.url)
	got := cure(t, postgres.CheckSchema(t.Context(), pool))
	want := "GRANT " + n.admin.Config().User + " TO " + strings.Trim(n.role, `"`)
	if len(got) != 1 || got[0] != want {
		t.Fatalf("the cure is %q, want %s", got, want)
	}

	// Without USAGE, the schema looks empty.
	n.do("REVOKE ALL ON SCHEMA public FROM PUBLIC")
	err := postgres.CheckSchema(t.Context(), pool)
	var older *postgres.SchemaError
	if got := cure(t, err); !errors.As(err, &older) || len(got) != 1 || got[0] != want {
		t.Fatalf("a schema that may not be used: %v", err)
	}
	n.do(want)
	pool = pgtest.Open(t, n.url) // a session keeps the search path with which it began
	if err := postgres.CheckSchema(t.Context(), pool); err != nil {
		t.Error(err)
	}
}
