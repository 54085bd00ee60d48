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

// withCure adds to an error that says that the role of pool lacks a right how to
// give it that. Any other error is returned as it is.
func withCure(ctx context.Context, pool *pgxpool.Pool, err error) error {
	// A schema that the role may not use looks to it as if it were empty.
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

// rights are those that it takes to bring the schema to a release and to use it.
type rights struct {
	Role, Database, Schema string
	Owner                  string // of the tables, if the role is not one of its
	Uses, Creates, Extends bool
}

// askRights returns the rights of the role of pool.
func askRights(ctx context.Context, pool *pgxpool.Pool) (has rights, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	// current_schema is null where the role may use none of its search path.
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

// cures are the statements that give the missing rights.
func (has rights) cures() []string {
	role := quoted(has.Role)
	if has.Owner != "" { // the owner has all the rights that are needed
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

// quoted returns a name as SQL needs it: as it is where it is a plain one.
func quoted(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return pgx.Identifier{name}.Sanitize()
}
