package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// withCure adds to an error how to give the role of pool a right, if the error says
// that the right is missing. It returns any other error as it is.
func withCure(ctx context.Context, pool *pgxpool.Pool, err error) error {
	// If the role may not use a schema, the schema looks empty to it.
	var older *SchemaError
	empty := errors.As(err, &older) && older.Have == 0
	if code := Code(err); code != codeNoRight && code != codeNoSchema && !empty {
		return err
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		conn := pool.Config().ConnConfig
		return cured(err, "GRANT CONNECT ON DATABASE "+quoted(conn.Database)+" TO "+quoted(conn.User))
	}
	has, askErr := askRights(ctx, pool)
	if askErr != nil || empty && has.Uses {
		return err
	}
	if cures := has.cures(); len(cures) > 0 {
		return cured(err, strings.Join(cures, "; "))
	}
	return err
}

func cured(err error, statements string) error {
	return fmt.Errorf("%w; the owner of the database mends that with: %s", err, statements)
}

// rights are the rights of a role that are needed to bring the schema to a release and
// to use it.
type rights struct {
	Role, Database, Schema string
	Owner                  string // the owner of the tables, if the role is not one of its members
	Uses, Creates, Extends bool
}

// askRights asks for the rights of the role of pool.
func askRights(ctx context.Context, pool *pgxpool.Pool) (has rights, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	// current_schema is null if the role may use no schema of its search path.
	rows, err := pool.Query(ctx, `
		WITH s AS (SELECT coalesce(current_schema(), 'public') AS name)
		SELECT current_user::text AS role, current_database()::text AS database, s.name::text AS schema,
			has_schema_privilege(s.name, 'USAGE') AS uses, has_schema_privilege(s.name, 'CREATE') AS creates,
			EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')
				OR has_database_privilege(current_database(), 'CREATE') AS extends,
			coalesce((SELECT tableowner::text FROM pg_tables
				WHERE schemaname = s.name AND tablename = 'goose_db_version'
					AND NOT pg_has_role(tableowner, 'USAGE')), '') AS owner
		FROM s`)
	if err != nil {
		return has, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[rights])
}

// cures returns the statements that give the missing rights.
func (has rights) cures() []string {
	role := quoted(has.Role)
	if has.Owner != "" { // the owner has all rights that are needed
		return []string{"GRANT " + quoted(has.Owner) + " TO " + role}
	}
	var cures, onSchema []string
	if !has.Uses {
		onSchema = append(onSchema, "USAGE")
	}
	if !has.Creates {
		onSchema = append(onSchema, "CREATE")
	}
	if len(onSchema) > 0 {
		cures = append(cures, "GRANT "+strings.Join(onSchema, ", ")+" ON SCHEMA "+quoted(has.Schema)+" TO "+role)
	}
	if !has.Extends {
		cures = append(cures, "GRANT CREATE ON DATABASE "+quoted(has.Database)+" TO "+role)
	}
	return cures
}

var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// quoted returns a name as SQL needs it, without quotes if it is a plain name.
func quoted(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return pgx.Identifier{name}.Sanitize()
}
