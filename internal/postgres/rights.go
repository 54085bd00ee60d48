package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// withCure adds to an error how to give the role of pool the rights that it needs, if
// the error says that one is missing. It returns any other error as it is.
func withCure(ctx context.Context, pool *pgxpool.Pool, err error) error {
	var older *SchemaError
	empty := errors.As(err, &older) && older.Have == 0
	code := Code(err)
	if code != codeNoRight && code != codeNoSchema && (!empty || !seesNoSchema(ctx, pool)) {
		return err
	}
	conn := pool.Config().ConnConfig
	role := quoted(conn.User)
	return fmt.Errorf("%w; if another role made the tables, GRANT that role TO %s; "+
		"else the owner of the database mends that with: GRANT CONNECT, CREATE ON DATABASE %s TO %s; GRANT USAGE, CREATE ON SCHEMA public TO %s",
		err, role, quoted(conn.Database), role, role)
}

// seesNoSchema reports whether the role of pool may use no schema of its search path.
// To such a role the database looks empty.
func seesNoSchema(ctx context.Context, pool *pgxpool.Pool) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var none bool
	err := pool.QueryRow(ctx, "SELECT current_schema() IS NULL").Scan(&none)
	return err == nil && none
}

var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// quoted returns a name as SQL needs it, without quotes if it is a plain name.
func quoted(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return pgx.Identifier{name}.Sanitize()
}
