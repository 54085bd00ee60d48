// Package queries is the SQL of Signpost, with the Go that sqlc makes of it.
package queries

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Planned makes Postgres plan each query for its actual values. So a filter that is not
// set costs nothing, and a query touches only the partitions that its filters leave. A
// prepared statement would end up with one plan for all values.
type Planned struct{ DBTX }

// QueryRow implements DBTX.
func (p Planned) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return p.DBTX.QueryRow(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
}

// Query implements DBTX.
func (p Planned) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return p.DBTX.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
}
