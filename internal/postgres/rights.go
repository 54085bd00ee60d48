package postgres

import (
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// withCure adds to an error how to give the role of pool the rights that it needs, if
// the error says that one is missing. It returns any other error as it is.
func withCure(pool *pgxpool.Pool, err error) error {
	if code := Code(err); code != codeNoRight && code != codeNoSchema {
		return err
	}
	conn := pool.Config().ConnConfig
	role := quoted(conn.User)
	return fmt.Errorf("%w; if another role made the tables, GRANT that role TO %s; "+
		"else the owner of the database mends that with: GRANT CONNECT, CREATE ON DATABASE %s TO %s; GRANT USAGE, CREATE ON SCHEMA public TO %s",
		err, role, quoted(conn.Database), role, role)
}

var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// quoted returns a name as SQL needs it, without quotes if it is a plain name.
func quoted(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return pgx.Identifier{name}.Sanitize()
}
