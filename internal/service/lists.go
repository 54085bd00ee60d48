package service

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/queries"
)

// Planned makes Postgres plan each query for its actual values. So a filter that is not
// set costs nothing, and a query touches only the partitions that its filters leave. A
// prepared statement would end up with one plan for all values.
type Planned struct{ queries.DBTX }

// QueryRow implements queries.DBTX.
func (p Planned) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return p.DBTX.QueryRow(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
}

// Query implements queries.DBTX.
func (p Planned) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return p.DBTX.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
}

// lists returns the queries that read lists.
func (s *Service) lists() *queries.Queries { return queries.New(Planned{s.Pool}) }

// Page says which rows of a list are wanted: those after a position, which are ids or
// lines and usually 0 at first, without the first Offset ones, and Limit of them.
type Page struct {
	After         int64
	Offset, Limit int32
}

// views returns rows in the form that users see.
func views[R, T any](rows []R, view func(R) T) []T {
	out := make([]T, len(rows))
	for i, row := range rows {
		out[i] = view(row)
	}
	return out
}
